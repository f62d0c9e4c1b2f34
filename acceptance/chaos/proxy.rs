//! A TCP proxy that stands in for a network between two processes, and can be told how that network fails.
//!
//! The rule this module protects: **what gets through is what was sent, in its order.** A network that fails is late, silent or gone;
//! it never loses the middle of a stream, because TCP does not.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use services::Port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, MutexGuard, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::plan::{Ending, Way};

/// Bytes that are read at once, and how many such pieces are on their way at most.
const PIECE: usize = 16 * 1024;
const ON_THE_WAY: usize = 64;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fine,
    Cut,
    Slow(Duration),
    /// Nothing of one way gets through, or of both.
    Silent {
        up: bool,
        down: bool,
    },
}

impl Weather {
    const fn holds(self, way: Way) -> bool {
        match self {
            Self::Fine | Self::Slow(_) => false,
            Self::Cut => true,
            Self::Silent { up, down } => match way {
                Way::Up => up,
                Way::Down => down,
            },
        }
    }

    const fn delay(self) -> Duration {
        match self {
            Self::Slow(by) => by,
            Self::Fine | Self::Cut | Self::Silent { .. } => Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Network {
    weather: Weather,
    /// How often all connections were reset.
    resets: u64,
    /// How often all connections were forgotten.
    forgotten: u64,
}

/// A link: it listens in place of a server, and carries what arrives to it and back.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: Port,
    network: watch::Sender<Network>,
    /// Whose turn it is to harm it.
    turn: Mutex<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// To a server on this machine.
    pub(crate) async fn to(server: u16, port: Port) -> Self {
        let (network, state) = watch::channel(Network { weather: Weather::Fine, resets: 0, forgotten: 0 });
        let listener = bind(port.number()).await;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, server));
        let task = tokio::spawn(serve(listener, port.number(), server, state));
        Self { port, network, turn: Mutex::new(()), task }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Waits until nobody else harms it.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// No connection, neither old nor new: the ones break, the others are refused.
    pub(crate) fn cut(&self) {
        self.network.send_modify(|network| {
            network.weather = Weather::Cut;
            network.resets += 1;
        });
    }

    /// Everything takes so much longer.
    pub(crate) fn delay(&self, by: Duration) {
        self.network.send_modify(|network| network.weather = Weather::Slow(by));
    }

    /// Nothing of that way gets through.
    pub(crate) fn half_open(&self, way: Way) {
        let weather = Weather::Silent { up: way == Way::Up, down: way == Way::Down };
        self.network.send_modify(|network| network.weather = weather);
    }

    /// Connections are taken, and nothing gets through.
    pub(crate) fn black_hole(&self) {
        self.network.send_modify(|network| network.weather = Weather::Silent { up: true, down: true });
    }

    /// From now on everything gets through, but for the connections that end like this.
    pub(crate) fn mend(&self, ending: Ending) {
        self.network.send_modify(|network| {
            network.weather = Weather::Fine;
            match ending {
                Ending::Late => {}
                Ending::Reset => network.resets += 1,
                Ending::Forgotten => network.forgotten += 1,
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bind(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is ours")
}

async fn serve(listener: TcpListener, port: u16, server: SocketAddr, mut state: watch::Receiver<Network>) {
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        // Where nobody listens a connection is refused.
        if state.borrow_and_update().weather == Weather::Cut {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind(port).await);
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            accepted = accepted => {
                // (An error is of the one connection, which is gone already.)
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, server, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What the network does to a connection that is open.
enum Fate {
    Reset,
    Forgotten,
}

async fn carry(mut client: TcpStream, server: SocketAddr, state: watch::Receiver<Network>) {
    let mut fated = state.clone();
    let opened = *fated.borrow();
    let fate = async {
        let struck =
            |network: &Network| network.resets != opened.resets || network.forgotten != opened.forgotten;
        match fated.wait_for(struck).await {
            Ok(network) if network.resets == opened.resets => Fate::Forgotten,
            Ok(_) | Err(_) => Fate::Reset,
        }
    };
    let mut upstream = None;
    let talk = async {
        // A handshake needs both ways.
        open(&mut state.clone(), &[Way::Up, Way::Down]).await;
        let server = upstream.insert(TcpStream::connect(server).await?);
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ((client_says, client_hears), (server_says, server_hears)) = (client.split(), server.split());
        let up = pump(client_says, server_hears, Way::Up, state.clone());
        let down = pump(server_says, client_hears, Way::Down, state.clone());
        tokio::try_join!(up, down)?;
        io::Result::Ok(())
    };
    let ended = tokio::select! {
        biased;
        fate = fate => Err(fate),
        talked = talk => talked.map_err(|_broken| Fate::Reset),
    };
    match ended {
        Ok(()) => {}
        Err(Fate::Reset) => {
            for stream in [Some(client), upstream].into_iter().flatten() {
                // (Where the other has gone already there is nobody to tell.)
                let _told = stream.set_zero_linger();
            }
        }
        // Both ends stay open, for as long as there is a network.
        Err(Fate::Forgotten) => std::future::pending().await,
    }
}

/// Completes when the network lets through what goes these ways.
async fn open(state: &mut watch::Receiver<Network>, ways: &[Way]) {
    let lets_through = |network: &Network| !ways.iter().any(|way| network.weather.holds(*way));
    if state.wait_for(lets_through).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Carries one way of a connection to its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    mut state: watch::Receiver<Network>,
) -> io::Result<()> {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let weather = state.clone();
    let read = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from.read(&mut buffer).await?;
            let due = Instant::now() + weather.borrow().weather.delay();
            // (An empty piece is the end of the stream.)
            if sender.send((due, buffer[..length].to_vec())).await.is_err() || length == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            open(&mut state, &[way]).await;
            if piece.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&piece).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::harness::in_time;

    /// What never comes is waited for so long.
    const SILENCE: Duration = Duration::from_millis(300);

    /// A server that says back what it hears, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                clients.spawn(async move {
                    let (mut says, mut hears) = client.split();
                    tokio::io::copy(&mut says, &mut hears).await
                });
            }
        });
        Proxy::to(server, services::services().port()).await
    }

    async fn connect(proxy: &Proxy) -> io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await
    }

    async fn hears(stream: &mut TcpStream, words: &[u8]) {
        let mut heard = vec![0; words.len()];
        in_time("an answer", stream.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, words);
    }

    async fn hears_nothing(stream: &mut TcpStream) {
        let heard = timeout(SILENCE, stream.read(&mut [0; 8])).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    async fn is_reset(stream: &mut TcpStream) {
        let heard = in_time("a reset", stream.read(&mut [0; 8])).await;
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_is_said_gets_through_in_its_order_and_so_does_the_end() {
        let proxy = echo().await;
        let mut client = connect(&proxy).await.unwrap();
        let words: Vec<u8> = (0..1_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
        let (mut answers, mut says) = client.split();
        let say = async {
            says.write_all(&words).await.unwrap();
            says.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        in_time("all of it", async { tokio::join!(say, answers.read_to_end(&mut heard)).1.unwrap() }).await;
        assert!(heard == words);
    }

    #[tokio::test]
    async fn a_cut_resets_who_is_connected_and_refuses_who_comes_until_it_is_mended() {
        let proxy = echo().await;
        let mut client = connect(&proxy).await.unwrap();
        client.write_all(b"one").await.unwrap();
        hears(&mut client, b"one").await;
        proxy.cut();
        is_reset(&mut client).await;
        assert_eq!(connect(&proxy).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        proxy.mend(Ending::Reset);
        let again = async {
            loop {
                if let Ok(client) = connect(&proxy).await {
                    return client;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut client = in_time("a connection", again).await;
        client.write_all(b"two").await.unwrap();
        hears(&mut client, b"two").await;
    }

    #[tokio::test]
    async fn a_black_hole_takes_connections_and_lets_nothing_through_until_it_is_late() {
        let proxy = echo().await;
        let mut before = connect(&proxy).await.unwrap();
        before.write_all(b"one").await.unwrap();
        hears(&mut before, b"one").await;
        proxy.black_hole();
        before.write_all(b"two").await.unwrap();
        let mut since = connect(&proxy).await.unwrap();
        since.write_all(b"three").await.unwrap();
        hears_nothing(&mut before).await;
        hears_nothing(&mut since).await;
        proxy.mend(Ending::Late);
        hears(&mut before, b"two").await;
        hears(&mut since, b"three").await;
    }

    #[tokio::test]
    async fn forgotten_connections_stay_open_and_silent_and_new_ones_work() {
        let proxy = echo().await;
        let mut before = connect(&proxy).await.unwrap();
        before.write_all(b"one").await.unwrap();
        hears(&mut before, b"one").await;
        proxy.half_open(Way::Down);
        before.write_all(b"two").await.unwrap();
        proxy.mend(Ending::Forgotten);
        before.write_all(b"three").await.unwrap();
        hears_nothing(&mut before).await;
        let mut since = connect(&proxy).await.unwrap();
        since.write_all(b"four").await.unwrap();
        hears(&mut since, b"four").await;
    }

    #[tokio::test]
    async fn what_is_delayed_comes_so_much_later_and_not_slower() {
        let proxy = echo().await;
        let mut client = connect(&proxy).await.unwrap();
        let by = Duration::from_millis(200);
        proxy.delay(by);
        let began = Instant::now();
        for word in 0..20 {
            client.write_all(&[word]).await.unwrap();
            tokio::task::yield_now().await;
        }
        hears(&mut client, &(0..20).collect::<Vec<u8>>()).await;
        let took = began.elapsed();
        assert!(took >= by * 2, "there and back: {took:?}");
        assert!(took < by * 10, "all of it at once: {took:?}");
    }
}
