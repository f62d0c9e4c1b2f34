//! What a connection is made with.
//!
//! The rule this module protects: a secret is in no message and no log, and nobody has to guess which of two credentials
//! was used.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

use super::connect::PATIENCE;
use super::error::NatsError;

/// Operations that wait to be written to the connection. While it is away they wait there, so there are not many.
const AHEAD: usize = 1024;
/// Messages that wait for their reader, of each subscription.
const WAITING: usize = 16 * 1024;
/// How often the server is asked whether it lives. Two silences are borne, with the third the connection is lost: whoever owns partitions does
/// nothing about them until then, and nobody takes them over, because he lives.
const PING: Duration = Duration::from_secs(3);
/// The longest pause between two attempts to connect again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How to connect. At most one of user with password, token, nkey seed and credentials file may be given.
#[derive(Clone, Default)]
pub struct Connect {
    /// Where the servers are, as in `nats://host:4222` or `tls://host:4222`. Without credentials: they have places of
    /// their own here.
    pub urls: Vec<String>,
    /// What the connection is called on the server's side.
    pub name: String,
    /// A user, with `password`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A token.
    pub token: Option<String>,
    /// The seed of a user's nkey.
    pub nkey_seed: Option<String>,
    /// A file with a user's JWT and seed.
    pub credentials_file: Option<PathBuf>,
    /// Who vouches for the server, PEM; the system's authorities where there is none.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, PEM, with `client_key`.
    pub client_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub client_key: Option<PathBuf>,
    /// Whether a connection without TLS is refused. It is, too, where one of the URLs is `tls://`, or `ca_file` or
    /// `client_certificate` is given.
    pub require_tls: bool,
}

/// Says what is set, and of secrets only that they are.
impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |secret: &Option<String>| secret.as_ref().map(|_| "<secret>");
        let urls: Vec<String> = self.urls.iter().map(|url| place(url)).collect();
        f.debug_struct("Connect")
            .field("urls", &urls)
            .field("name", &self.name)
            .field("user", &self.user)
            .field("password", &secret(&self.password))
            .field("token", &secret(&self.token))
            .field("nkey_seed", &secret(&self.nkey_seed))
            .field("credentials_file", &self.credentials_file)
            .field("ca_file", &self.ca_file)
            .field("client_certificate", &self.client_certificate)
            .field("client_key", &self.client_key)
            .field("require_tls", &self.require_tls)
            .finish()
    }
}

/// Where a server is, and nothing else that may have got into its URL.
fn place(url: &str) -> String {
    match url.parse::<ServerAddr>() {
        Ok(_) if url.contains('@') => "<with credentials>".to_owned(),
        Ok(server) => format!("{}://{}:{}", server.scheme(), server.host(), server.port()),
        Err(_) => "<not a server's URL>".to_owned(),
    }
}

impl Connect {
    /// A connection to this server, without credentials.
    #[must_use]
    pub fn to(url: &str) -> Self {
        Self { urls: vec![url.to_owned()], name: "financing".to_owned(), ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<(), NatsError> {
        let wrong = |what: &str| Err(NatsError::Settings(what.to_owned()));
        if self.urls.is_empty() {
            return wrong("there is no server's URL");
        }
        if self.urls.iter().any(|url| url.contains('@')) {
            return wrong("a URL holds credentials, which have settings of their own");
        }
        // It is not quoted: where the host was forgotten, there is a password in its place.
        for (number, url) in (1..).zip(&self.urls) {
            let which = format!("URL {number} of {}", self.urls.len());
            let server = url.parse::<ServerAddr>().ok().filter(|server| !server.host().is_empty());
            let Some(server) = server else {
                return wrong(&format!("{which} is not a server's URL, as in nats://host:4222"));
            };
            // The client is built without WebSockets, and would speak plain TCP, without TLS.
            if server.is_websocket() {
                return wrong(&format!("{which} is a WebSocket's, as which NATS is not reached here"));
            }
        }
        let user = self.user.is_some() || self.password.is_some();
        let ways = [user, self.token.is_some(), self.nkey_seed.is_some(), self.credentials_file.is_some()];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            return wrong("give one of user with password, token, nkey seed and credentials file");
        }
        if self.user.is_some() != self.password.is_some() {
            return wrong("user and password belong together");
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return wrong("a client certificate and its key belong together");
        }
        let files = [&self.credentials_file, &self.ca_file, &self.client_certificate, &self.client_key];
        for file in files.into_iter().flatten() {
            if let Err(error) = std::fs::File::open(file) {
                return Err(NatsError::Settings(format!("{}: {error}", file.display())));
            }
        }
        Ok(())
    }

    /// Whether every connection has to have TLS: also where only one setting speaks of it, because the addresses of other
    /// servers come from the server, without a word about TLS.
    fn wants_tls(&self) -> bool {
        let by_url = |url: &String| url.parse::<ServerAddr>().is_ok_and(|server| server.tls_required());
        self.require_tls
            || self.ca_file.is_some()
            || self.client_certificate.is_some()
            || self.urls.iter().any(by_url)
    }

    pub(super) async fn options(&self) -> Result<ConnectOptions, NatsError> {
        let mut options = ConnectOptions::new()
            .name(&self.name)
            .require_tls(self.wants_tls())
            .client_capacity(AHEAD)
            .subscription_capacity(WAITING)
            .ping_interval(PING)
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .reconnect_delay_callback(pause);
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let Some(seed) = &self.nkey_seed {
            options = options.nkey(seed.clone());
        }
        if let Some(file) = &self.credentials_file {
            // What is wrong inside is not quoted: it may hold a part of the secret.
            options = options.credentials_file(file).await.map_err(|_| {
                NatsError::Settings(format!("{} does not hold a JWT and a seed", file.display()))
            })?;
        }
        if let Some(file) = &self.ca_file {
            options = options.add_root_certificates(file.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options)
    }
}

/// The pause before an attempt to connect: none before the first, then doubling, the half of it at random, so that
/// not everybody comes back at once.
fn pause(attempts: usize) -> Duration {
    let Some(doublings) = attempts.checked_sub(2) else { return Duration::ZERO };
    let exponent = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
    let most = Duration::from_millis(10 << exponent).min(LONGEST_PAUSE);
    let half = u64::try_from(most.as_micros() / 2).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(half + RandomState::new().hash_one(attempts) % half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_of_authentication_is_enough() {
        let both = Connect {
            token: Some("a".to_owned()),
            nkey_seed: Some("b".to_owned()),
            ..Connect::to("nats://localhost")
        };
        assert!(matches!(both.check(), Err(NatsError::Settings(_))));
        let half = Connect { user: Some("a".to_owned()), ..Connect::to("nats://localhost") };
        assert!(matches!(half.check(), Err(NatsError::Settings(_))));
        let url = Connect::to("nats://me:hunter2@localhost");
        assert!(!url.check().unwrap_err().to_string().contains("hunter2"));
        assert_eq!(Connect::to("nats://localhost").check(), Ok(()));
    }

    #[test]
    fn no_secret_is_shown() {
        let secret = || Some("hunter2".to_owned());
        let settings = Connect {
            password: secret(),
            token: secret(),
            nkey_seed: secret(),
            ..Connect::to("nats://me:hunter2@localhost")
        };
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }

    #[test]
    fn a_password_where_the_host_was_forgotten_is_not_shown() {
        let good = "nats://localhost".to_owned();
        let settings = Connect {
            urls: vec![good.clone(), "nats://me:hunter2".to_owned()],
            ..Connect::to("nats://localhost")
        };
        let refused = settings.check().unwrap_err().to_string();
        assert!(refused.contains("URL 2 of 2"), "{refused}");
        let shown = format!("{refused} {settings:?}");
        assert!(!shown.contains("hunter2") && shown.contains("nats://localhost:4222"), "{shown}");
    }

    #[test]
    fn whoever_speaks_of_tls_gets_it_everywhere() {
        let plain = Connect::to("nats://localhost");
        assert!(!plain.wants_tls());
        for settings in [
            Connect { require_tls: true, ..plain.clone() },
            Connect { ca_file: Some(PathBuf::from("ca.pem")), ..plain.clone() },
            Connect { client_certificate: Some(PathBuf::from("client.pem")), ..plain.clone() },
            Connect { urls: vec!["nats://a".to_owned(), "TLS://b".to_owned()], ..plain },
        ] {
            assert!(settings.wants_tls(), "{settings:?}");
        }
        for socket in ["ws://localhost", "wss://localhost"] {
            let refused = Connect::to(socket).check().unwrap_err();
            assert!(refused.to_string().contains("WebSocket"), "{refused}");
        }
    }

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        assert_eq!(pause(1), Duration::ZERO);
        assert!((2..200).map(pause).all(|pause| pause <= LONGEST_PAUSE && !pause.is_zero()));
        assert!((0..9).any(|_| pause(50) != pause(50)));
    }
}
