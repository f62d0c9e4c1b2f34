//! The arrows of the house: who may import whom. Everything that is not drawn here is refused.
//!
//! `cmd -> runtime -> {api, readmodel, adapters} -> {domain, eventsourcing}`, `domain -> eventsourcing`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of the root package, and the modules of it that each may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("sqlite", &[]),
    ("postgres", &[]),
    ("nats", &[]),
    ("runtime", &["api", "sqlite", "postgres", "nats"]),
];

/// What the crates may depend on: nothing that does I/O, tells the time or throws dice. (The checker may read stores, but it
/// shares no code with what it checks.)
const CRATES: &[(&str, &[&str])] = &[
    ("domain", &["eventsourcing", "serde", "serde_json", "thiserror", "uuid"]),
    ("readmodel", &["domain", "eventsourcing", "futures-util", "tokio", "uuid"]),
    ("verify", &["async-nats", "futures-util", "serde", "serde_json", "sqlx", "thiserror", "tokio", "uuid"]),
    (
        "eventsourcing",
        &["futures-util", "serde", "serde_json", "sha2", "thiserror", "tokio", "tracing", "uuid"],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

/// The first words behind each occurrence of a path's beginning, as in `crate::` or `super::super::`; a group in
/// braces counts with all of its members.
fn words_behind<'a>(text: &'a str, beginning: &str) -> Vec<&'a str> {
    let word = |text: &'a str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        &text[..end]
    };
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut words = Vec::new();
    for line in code {
        for (at, _) in line.match_indices(beginning) {
            let is_longer_path = line[..at].ends_with("::") || line[..at].ends_with(char::is_alphanumeric);
            if is_longer_path {
                continue;
            }
            let rest = &line[at + beginning.len()..];
            match rest.strip_prefix('{') {
                Some(group) => words.extend(group.split(',').map(|member| word(member.trim_start()))),
                None => words.push(word(rest)),
            }
        }
    }
    words
}

fn modules() -> BTreeSet<&'static str> {
    ARROWS.iter().map(|(module, _)| *module).collect()
}

#[test]
fn every_module_of_the_root_package_is_drawn() {
    let library = std::fs::read_to_string(root().join("internal/lib.rs")).unwrap();
    let declared: BTreeSet<&str> =
        library.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, modules());
}

#[test]
fn modules_import_only_what_is_drawn() {
    let mut wrong = Vec::new();
    for (module, allowed) in ARROWS {
        for (path, text) in sources(&root().join("internal").join(module)) {
            let mut imported = words_behind(&text, "crate::");
            for depth in 1..4 {
                imported.extend(
                    words_behind(&text, &"super::".repeat(depth))
                        .into_iter()
                        .filter(|word| {
                            modules().contains(word) && !path.ends_with(format!("{module}/{word}.rs"))
                        })
                        .filter(|word| !root().join(format!("internal/{module}/{word}.rs")).exists()),
                );
            }
            for word in imported {
                let is_module = modules().contains(word);
                if is_module && word != *module && !allowed.contains(&word) {
                    wrong.push(format!("{}: {module} -> {word}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that nobody drew:\n{}", wrong.join("\n"));
}

#[test]
fn programs_are_short_and_know_only_the_runtime() {
    for (path, text) in sources(&root().join("cmd")) {
        assert!(text.lines().count() < 40, "{} is not short any more", path.display());
        let imported = words_behind(&text, "invoice_financing::");
        assert!(imported.iter().all(|word| *word == "runtime"), "{}: {imported:?}", path.display());
        for other in ["domain::", "eventsourcing::", "tonic::", "sqlx::"] {
            assert!(words_behind(&text, other).is_empty(), "{} imports {other}", path.display());
        }
    }
}

#[test]
fn the_crates_depend_only_on_what_is_drawn() {
    for (name, allowed) in CRATES {
        let manifest =
            std::fs::read_to_string(root().join("internal").join(name).join("Cargo.toml")).unwrap();
        let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut section = String::new();
        for line in manifest.lines() {
            if let Some(header) = line.strip_prefix('[') {
                header.trim_end_matches(']').clone_into(&mut section);
            } else if let Some((dependency, _)) = line.split_once(['=', '.']) {
                sections.entry(section.clone()).or_default().push(dependency.trim().to_owned());
            }
        }
        assert_eq!(sections["dependencies"], *allowed, "{name}");
    }
}

#[test]
fn the_kernel_has_no_timer_no_tasks_and_no_dice() {
    // The checker reads stores, and does not wait for them for ever.
    for (name, _) in CRATES.iter().filter(|(name, _)| *name != "verify") {
        for (path, text) in sources(&root().join("internal").join(name).join("src")) {
            for forbidden in
                ["tokio::time", "tokio::spawn", "tokio::select", "select!(", "std::thread", "std::net"]
            {
                assert!(!text.contains(forbidden), "{} uses {forbidden}", path.display());
            }
        }
    }
}

#[test]
fn the_scanner_sees_what_it_must() {
    let text = "use crate::{api, sqlite::log};\nuse super::super::runtime::x;\n// crate::nothing\nlet a = crate::api::b();";
    assert_eq!(words_behind(text, "crate::"), ["api", "sqlite", "api"]);
    assert_eq!(words_behind(text, "super::super::"), ["runtime"]);
}
