//! What tests rely on: a database and a server of one's own, and a server that comes back as it was.
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread::spawn;
use std::time::Duration;

use services::{Database, NatsServer, PostgresServer, services};

/// As much of a NATS client as it takes to ask one question at a time.
struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(server: &NatsServer) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut client = Self { reader: BufReader::new(stream) };
        client.line_with("INFO ");
        client.send("CONNECT {\"verbose\":false}\r\nSUB answers 1\r\nPING\r\n");
        client.line_with("PONG");
        client
    }

    /// Publishes and waits for the answer.
    fn ask(&mut self, subject: &str, payload: &str) -> String {
        self.send(&format!("PUB {subject} answers {}\r\n{payload}\r\n", payload.len()));
        self.line_with("MSG answers");
        self.line()
    }

    fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.reader.read_line(&mut line).unwrap() > 0, "the server hung up");
        line
    }

    fn line_with(&mut self, start: &str) -> String {
        loop {
            let line = self.line();
            if line.starts_with(start) {
                return line;
            }
        }
    }
}

fn name_and_owner(database: &Database) -> String {
    database.psql("SELECT current_database(), pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
}

#[test]
fn each_database_is_its_own_and_belongs_to_the_owner() {
    let (one, other) = (services().database(), services().database());
    assert_ne!(one.name(), other.name());
    assert_eq!(name_and_owner(&one), format!("{}|financing\n", one.name()));
    one.psql("CREATE TABLE facts (sequence bigint); INSERT INTO facts VALUES (1), (2);");
    assert_eq!(one.psql("SELECT count(*) FROM facts"), "2\n");
    assert_eq!(other.psql("SELECT to_regclass('facts') IS NULL"), "t\n");
}

#[test]
fn each_url_connects_as_its_role() {
    let database = services().database();
    let role = format!("reader_of_{}", database.name());
    database.psql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"));
    let who = |url: &str| {
        let psql = services().folder().join("bin/psql");
        let output = Command::new(psql).args(["-XAtc", "SELECT current_user", url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(who(&database.url()), "financing\n");
    assert_eq!(who(&database.admin_url()), "postgres\n");
    assert_eq!(who(&database.url_as(&role, "secret")), format!("{role}\n"));
    assert_eq!(who(&database.url_as(&role, "guessed")), "", "a wrong password must not do");
    database.psql(&format!("DROP ROLE {role}"));
}

#[test]
fn a_database_goes_with_its_value() {
    let database = services().database();
    let name = database.name().to_owned();
    drop(database);
    let left =
        services().database().psql(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"));
    assert_eq!(left, "0\n");
}

#[test]
#[should_panic(expected = "relation \"nothing\" does not exist")]
fn a_script_that_fails_says_why() {
    services().database().psql("SELECT 1; SELECT * FROM nothing; SELECT 2");
}

#[test]
fn a_server_that_was_killed_still_has_what_it_acknowledged() {
    let mut server = NatsServer::start();
    let url = server.url();
    let mut client = Client::connect(&server);
    let created = client
        .ask("$JS.API.STREAM.CREATE.FACTS", r#"{"name":"FACTS","subjects":["facts"],"storage":"file"}"#);
    assert!(created.contains(r#""config":"#), "{created}");
    for sequence in 1..=100 {
        let acknowledged = client.ask("facts", "a fact");
        assert!(acknowledged.contains(&format!(r#""seq":{sequence}"#)), "{acknowledged}");
    }
    server.kill();
    TcpStream::connect(("127.0.0.1", server.port())).expect_err("a killed server must not answer");

    server.start_again();
    assert_eq!(server.url(), url);
    let stream = Client::connect(&server).ask("$JS.API.STREAM.INFO.FACTS", "");
    assert!(stream.contains(r#""messages":100"#), "{stream}");
    assert!(server.store().is_dir());
}

#[test]
fn a_server_stops_when_it_is_asked_to() {
    let mut server = NatsServer::start();
    server.stop();
    assert!(server.log().contains("Initiating Shutdown"), "{}", server.log());
    server.start_again();
    Client::connect(&server);
}

#[test]
fn a_frozen_server_goes_on_where_it_was() {
    let server = NatsServer::start();
    let mut client = Client::connect(&server);
    server.signal("STOP");
    client.send("PING\r\n");
    server.signal("CONT");
    client.line_with("PONG");
}

#[test]
fn a_server_heeds_the_configuration_that_a_test_adds() {
    let server = NatsServer::start_with("max_payload: 1234");
    let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut greeting = String::new();
    BufReader::new(stream).read_line(&mut greeting).unwrap();
    assert!(greeting.contains(r#""max_payload":1234"#), "{greeting}");
}

#[test]
#[should_panic(expected = "nats-server ended")]
fn a_server_that_cannot_start_says_why() {
    let _ = NatsServer::start_with("max_payload: a lot {");
}

#[test]
fn many_servers_run_side_by_side_and_leave_nothing_behind() {
    let servers: Vec<_> = (0..8).map(|_| spawn(NatsServer::start)).collect();
    let servers: Vec<_> = servers.into_iter().map(|server| server.join().unwrap()).collect();
    let folders: Vec<_> = servers.iter().map(|server| server.store().parent().unwrap().to_owned()).collect();
    let ports: Vec<_> = servers.iter().map(NatsServer::port).collect();
    for server in &servers {
        Client::connect(server);
    }
    drop(servers);
    assert!(folders.iter().all(|folder| !folder.exists()));
    for port in ports {
        TcpStream::connect(("127.0.0.1", port)).expect_err("a dropped server must not answer");
    }
}

#[test]
fn a_postgresql_of_ones_own_is_killed_and_still_has_what_it_committed() {
    let mut server = PostgresServer::start();
    let database = server.database();
    database.psql("CREATE TABLE facts (sequence bigint)");
    assert_eq!(name_and_owner(&database), format!("{}|financing\n", database.name()));
    for round in 1..=3 {
        database.psql("INSERT INTO facts SELECT generate_series(1, 100)");
        server.kill();
        TcpStream::connect(("127.0.0.1", server.port())).expect_err("a killed server must not answer");

        server.start_again();
        assert_eq!(database.psql("SELECT count(*) FROM facts"), format!("{}\n", 100 * round));
    }
    let recoveries = server.log().matches("automatic recovery in progress").count();
    assert_eq!(recoveries, 3, "{}", server.log());
    assert_eq!(database.psql("SHOW fsync"), "on\n");
}

#[test]
fn a_frozen_postgresql_answers_nobody_and_goes_on_where_it_was() {
    let mut server = PostgresServer::start();
    let database = server.database();
    let asked = Command::new(services().folder().join("bin/psql"))
        .args(["-XAtc", "SELECT pg_sleep(0.05), 'done'", &database.url()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    server.freeze();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // The request for TLS, which is answered with one byte.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).expect_err("a frozen server must not answer");
    server.thaw();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8(asked.wait_with_output().unwrap().stdout).unwrap(), "|done\n");
}

#[test]
fn a_postgresql_of_ones_own_leaves_nothing_behind() {
    let server = PostgresServer::start();
    let (port, data) = (server.port(), server.data());
    let mut frozen = PostgresServer::start();
    frozen.freeze();
    let (ports, folders) = ([port, frozen.port()], [data, frozen.data()]);
    assert!(folders.iter().all(|folder| folder.is_dir()));
    drop((server, frozen));
    assert!(folders.iter().all(|folder| !folder.parent().unwrap().exists()));
    for port in ports {
        TcpStream::connect(("127.0.0.1", port)).expect_err("a dropped server must not answer");
    }
}
