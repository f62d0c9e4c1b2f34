//! Two of everything: a cluster of NATS, a standby of PostgreSQL, and the script that starts both.
#![expect(clippy::unwrap_used, reason = "a test that meets an error fails")]

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use services::{NatsServer, PostgresServer, services};
use tempfile::TempDir;

#[test]
fn a_standby_takes_over_with_all_that_was_committed() {
    let mut server = PostgresServer::start();
    let standby = server.standby(true);
    let database = server.database();
    database.psql("CREATE TABLE facts (sequence bigint); INSERT INTO facts SELECT generate_series(1, 100)");
    let (port, before) = (server.port(), server.data());
    server.fail_over_to(standby);
    assert_eq!(server.port(), port, "under the same address");
    assert_ne!(server.data(), before);
    assert!(!before.exists(), "two would be two histories");
    assert_eq!(database.psql("SELECT count(*) FROM facts"), "100\n");
    database.psql("INSERT INTO facts VALUES (101)");
    assert_eq!(database.psql("SELECT count(*), pg_is_in_recovery() FROM facts"), "101|f\n");
}

#[test]
fn servers_of_a_cluster_have_found_each_other() {
    let servers = NatsServer::cluster(3);
    for server in &servers {
        TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let log = server.log();
        assert!(log.contains("Cluster name is test"), "{log}");
    }
}

/// A folder of the script's own, which goes with all that runs in it.
struct Folder(TempDir);

impl Folder {
    /// With the programs that were found already.
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("services")).unwrap();
        let bin = folder.path().join("services/bin");
        fs::create_dir(&bin).unwrap();
        for program in fs::read_dir(services().folder().join("bin")).unwrap() {
            let program = program.unwrap().path();
            symlink(program.canonicalize().unwrap(), bin.join(program.file_name().unwrap())).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("services")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services");
        Command::new(script).args(arguments).arg("--dir").arg(self.path()).output().unwrap()
    }

    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Where each server listens, as the folder says it.
    fn listening(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path().join("listening")).unwrap();
        let line = |line: &str| {
            let columns: Vec<&str> = line.split('\t').collect();
            assert!(Path::new(columns[2]).exists() && Path::new(columns[3]).exists(), "{line}");
            (columns[0].to_owned(), columns[1].to_owned())
        };
        text.lines().map(line).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.run(&["down", "--purge"]);
    }
}

#[test]
fn the_script_starts_two_of_everything_and_puts_the_standby_in_the_primarys_place() {
    let folder = Folder::new();
    let exports = folder.says(&["up", "--ha"]);
    assert!(exports.contains("export FINANCING_NATS_REPLICAS=3\n"), "{exports}");
    let urls = exports.lines().find_map(|line| line.strip_prefix("export FINANCING_NATS_URL=")).unwrap();
    let listening = folder.listening();
    let names: Vec<&str> = listening.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["postgres", "standby", "nats-1", "nats-2", "nats-3"]);
    let servers: Vec<String> =
        listening[2..].iter().map(|(_, address)| format!("nats://{address}")).collect();
    assert_eq!(urls, servers.join(","));

    folder.says(&["failover"]);
    assert_eq!(folder.listening()[0], listening[0], "under the same address");
    let status = folder.says(&["status"]);
    assert!(
        status.lines().any(|line| line.starts_with("standby on ") && line.ends_with(", sync")),
        "{status}"
    );
    assert_eq!(folder.says(&["up"]), exports, "it remembers what it was made as");

    folder.says(&["down", "--purge"]);
    assert!(!folder.path().exists());
    assert!(!folder.run(&["status"]).status.success());
}
