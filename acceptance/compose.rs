//! What docker-compose.yml says is what the code knows: every image, port, health check and setting.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory as _;
use invoice_financing::runtime::config::{EmbeddedSettings, NAMES};
use invoice_financing::runtime::populate::PopulateSettings;
use invoice_financing::runtime::settings::{
    CommandsSettings, ProjectorSettings, QueriesSettings, RelayerSettings,
};
use serde_json::Value;

use crate::documents::document;

/// The services of the file, with what is left open filled in.
fn services() -> BTreeMap<String, Value> {
    let text = document("docker-compose.yml");
    let mut filled = String::new();
    let mut rest = text.as_str();
    // `${NAME:-default}` is its default, and a dollar that is doubled is one.
    while let Some((before, variable)) = rest.split_once("${") {
        let (variable, after) = variable.split_once('}').expect("a variable ends");
        let (_, default) = variable.split_once(":-").expect("every variable has a default");
        filled += before;
        filled += default;
        rest = after;
    }
    filled += rest;
    let file: Value = serde_saphyr::from_str(&filled.replace("$$", "$")).expect("docker-compose.yml is YAML");
    let services = file["services"].as_object().expect("services").clone();
    services.into_iter().collect()
}

/// The programs that are built here, by the name of their service.
fn programs() -> BTreeMap<String, Value> {
    services().into_iter().filter(|(_, service)| service.get("build").is_some()).collect()
}

fn command_line(service: &Value) -> Vec<String> {
    let words = service["command"].as_array().expect("a command as a list").iter();
    words.map(|word| word.as_str().expect("a word").to_owned()).collect()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let environment = service["environment"].as_object().expect("an environment");
    environment.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn parser(program: &str) -> clap::Command {
    match program {
        "financing" => EmbeddedSettings::command(),
        "commandsd" => CommandsSettings::command(),
        "relayerd" => RelayerSettings::command(),
        "queryprojectord" => ProjectorSettings::command(),
        "queriesd" => QueriesSettings::command(),
        "populate" => PopulateSettings::command(),
        other => panic!("there is no program {other}"),
    }
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').expect("host:port").1
}

/// What follows a word in a file of ours, as in `NATS_VERSION=2.15.1`.
fn pinned(path: &str, word: &str) -> String {
    let text = document(path);
    let (_, rest) = text.split_once(word).unwrap_or_else(|| panic!("{word} in {path}"));
    rest.trim_start_matches([' ', '=', '"']).chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect()
}

#[test]
fn every_component_is_there_once() {
    let lines: BTreeSet<String> =
        programs().values().map(|service| command_line(service).join(" ")).collect();
    let expected = [
        "commandsd --listener",
        "commandsd --worker",
        "commandsd --policies",
        "relayerd",
        "queryprojectord",
        "queriesd",
        "financing migrate",
        "populate",
    ];
    assert_eq!(lines, expected.map(ToOwned::to_owned).into());
}

#[test]
fn every_program_understands_its_command_line_and_its_environment() {
    for (name, service) in programs() {
        let line = command_line(&service);
        let (command, set) = (parser(&line[0]), environment(&service));
        let mut arguments = line.clone();
        for (variable, value) in &set {
            assert!(NAMES.contains(&variable.as_str()), "{name}: there is no setting {variable}");
            let argument =
                command.get_arguments().find(|one| one.get_env().is_some_and(|env| env == variable.as_str()));
            if let Some(flag) = argument.and_then(clap::Arg::get_long).filter(|_| line.len() == 1) {
                arguments.push(format!("--{flag}={value}"));
            }
        }
        let parsed = command.try_get_matches_from(&arguments);
        parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn every_program_is_told_of_the_servers_that_it_needs() {
    for (name, service) in programs() {
        let set = environment(&service);
        let needs: &[&str] = match command_line(&service).join(" ").as_str() {
            "commandsd --listener" => &["FINANCING_NATS_URL"],
            "commandsd --worker" | "commandsd --policies" | "relayerd" => {
                &["FINANCING_NATS_URL", "FINANCING_COMMAND_DATABASE_URL"]
            }
            "queryprojectord" | "queriesd" => &["FINANCING_NATS_URL", "FINANCING_QUERY_DATABASE_URL"],
            "financing migrate" => &["FINANCING_COMMAND_DATABASE_URL", "FINANCING_QUERY_DATABASE_URL"],
            "populate" => &["FINANCING_COMMAND_ADDR", "FINANCING_QUERY_ADDR"],
            other => panic!("{name}: {other}"),
        };
        for variable in needs {
            let host = set[*variable].rsplit_once('@').map_or(set[*variable].as_str(), |(_, host)| host);
            let host = host.trim_start_matches("nats://").split(':').next().unwrap();
            assert!(services().contains_key(host), "{name}: {variable} names {host}, which is no service");
        }
    }
}

#[test]
fn every_health_check_asks_where_its_program_answers() {
    let mut checked = 0;
    for (name, service) in programs() {
        let (line, set) = (command_line(&service), environment(&service));
        if ["financing", "populate"].contains(&line[0].as_str()) {
            continue;
        }
        let answers = match line.join(" ").as_str() {
            "commandsd --listener" => "FINANCING_COMMAND_ADDR",
            "queriesd" => "FINANCING_QUERY_ADDR",
            _ => "FINANCING_HEALTH_ADDR",
        };
        let test = service["healthcheck"]["test"].as_array().expect("a check as a list");
        let test: Vec<&str> = test.iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(test[..3], ["CMD", "financing", "health"], "{name}");
        parser("financing")
            .try_get_matches_from(&test[1..])
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(port(test[3]), port(&set[answers]), "{name}");
        checked += 1;
    }
    assert_eq!(checked, 8, "each component, and the second listener and query service");
}

#[test]
fn commands_and_queries_are_published_on_the_ports_that_clients_expect() {
    for (program, service, flag) in
        [("commandsd", "listener", "command_addr"), ("queriesd", "queries", "query_addr")]
    {
        let parser = parser(program);
        let default =
            parser.get_arguments().find(|one| one.get_id() == flag).expect(flag).get_default_values();
        let expected = port(default[0].to_str().unwrap()).to_owned();
        let service = &services()[service];
        let published = text(&service["ports"][0]);
        assert_eq!(published, format!("127.0.0.1:{expected}:{expected}"), "{program}");
    }
}

#[test]
fn the_images_are_those_that_the_rest_of_the_project_uses() {
    let services = services();
    let image = |name: &str| text(&services[name]["image"]);
    assert_eq!(image("nats"), format!("nats:{}-alpine", pinned("scripts/services", "NATS_VERSION")));
    let major: u32 =
        image("log-db").trim_start_matches("postgres:").split('-').next().unwrap().parse().unwrap();
    assert!(major >= pinned("scripts/services", "POSTGRES_LEAST").parse().unwrap());
    for other in ["nats-2", "nats-3"] {
        assert_eq!(image(other), image("nats"), "{other}");
    }
    for other in ["query-db", "roles", "log-db-standby", "query-db-standby"] {
        assert_eq!(image(other), image("log-db"), "{other}");
    }
    assert_eq!(pinned("Dockerfile", "FROM rust:"), pinned("Cargo.toml", "rust-version"));
    let bins: Vec<String> = document("Cargo.toml")
        .split("[[bin]]")
        .skip(1)
        .map(|bin| bin.split('"').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(bins.len(), 6);
    for bin in bins {
        assert!(document("Dockerfile").contains(&format!("target/release/{bin}")), "the image lacks {bin}");
    }
}

#[test]
fn nats_flushes_what_it_acknowledges_and_keeps_it() {
    for (file, names) in
        [("deploy/nats.conf", &["nats"][..]), ("deploy/nats-cluster.conf", &["nats", "nats-2", "nats-3"])]
    {
        let configuration = document(file);
        assert!(configuration.contains("sync_interval: always"), "{file}");
        assert!(configuration.contains("store_dir: /data"), "{file}");
        for name in names {
            let nats = &services()[*name];
            let mounts = nats["volumes"].as_array().unwrap();
            assert!(mounts.iter().any(|mount| text(mount) == format!("{name}:/data")), "{mounts:?}");
            let check = text(nats["healthcheck"]["test"].as_array().unwrap().last().unwrap());
            assert_eq!(check, format!("http://127.0.0.1:{}/healthz", pinned(file, "http: 127.0.0.1:")));
        }
    }
}

#[test]
fn the_profile_for_high_availability_has_two_of_everything() {
    let settings: BTreeMap<String, String> = document("deploy/ha.env")
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let services = services();
    let profiled =
        |service: &Value| service["profiles"].as_array().is_some_and(|all| all.iter().any(|one| one == "ha"));
    let added: BTreeSet<&str> =
        services.iter().filter(|(_, service)| profiled(service)).map(|(name, _)| name.as_str()).collect();
    let expected = ["listener-2", "log-db-standby", "nats-2", "nats-3", "queries-2", "query-db-standby"];
    assert_eq!(added, expected.into());
    let scaled = services.values().filter(|service| service.get("scale").is_some()).count();
    assert_eq!((scaled, settings["REPLICAS"].as_str()), (4, "2"), "of each of the other components");
    let cluster = document(settings["NATS_CONFIG"].trim_start_matches("./"));
    let servers: Vec<&str> =
        settings["FINANCING_NATS_URL"].split(',').map(|url| url.trim_start_matches("nats://")).collect();
    assert_eq!(servers.len().to_string(), settings["FINANCING_NATS_REPLICAS"]);
    for server in servers {
        let host = server.split(':').next().unwrap();
        assert_eq!(services[host]["environment"]["NATS_NAME"], host);
        assert!(cluster.contains(&format!("\"nats://{host}:6222\"")), "{host} is one of the cluster");
    }
    assert_eq!(settings["COMPOSE_PROFILES"], "ha");
}

#[test]
fn everybody_waits_for_a_condition_and_stops_in_its_own_time() {
    let mut conditions = 0;
    for (name, service) in services() {
        if let Some(depends) = service.get("depends_on") {
            let depends = depends.as_object().unwrap_or_else(|| panic!("{name} waits for conditions"));
            for (on, how) in depends {
                let expected = match on.as_str() {
                    "migrate" | "roles" => "service_completed_successfully",
                    _ => "service_healthy",
                };
                assert_eq!(how["condition"], expected, "{name} waits for {on}");
                conditions += 1;
            }
        }
        if let Some(grace) =
            service["environment"].get("FINANCING_GRACE_SECONDS").filter(|_| service.get("build").is_some())
        {
            let stop: u32 = text(&service["stop_grace_period"]).trim_end_matches('s').parse().unwrap();
            assert!(stop > text(grace).parse().unwrap(), "{name}");
        }
    }
    assert!(conditions > 10);
    assert!(!document("docker-compose.yml").contains("sleep"));
}
