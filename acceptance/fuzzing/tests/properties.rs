//! Every property holds for everything in the corpus, for what chance makes of it, and for what chance makes of nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use domain::financing::{Command, Financing};
use eventsourcing::command::{Slot, unpack};
use eventsourcing::model::{AggregateRef, EncodedSnapshot, Model as _};
use eventsourcing::partition::Partition;
use fuzzing::{Property, TARGETS};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use uuid::Uuid;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The corpus of a target, in the order of its names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(fuzz().join("corpus").join(target)).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn property(name: &str) -> Property {
    TARGETS.iter().find(|(target, _)| *target == name).unwrap().1
}

#[test]
fn every_file_of_the_corpus_is_run() {
    for (target, property) in TARGETS {
        let files = corpus(target);
        assert!(files.len() >= 3, "{target} has no corpus to speak of");
        for (path, bytes) in files {
            println!("{}", path.display());
            property(&bytes);
        }
    }
}

#[test]
fn a_megabyte_of_the_same_is_refused_like_anything_else() {
    const MANY: usize = 1 << 20;
    for (_, property) in TARGETS {
        for one in [b'[', b'{', b'"', b'\n', b'0', b'\0', b',', 0xff] {
            property(&vec![one; MANY]);
        }
        // Nested as deep as it goes, behind what chooses.
        property(&[&[1, 1][..], &b"{\"a\":".repeat(MANY / 5)].concat());
    }
}

#[test]
fn every_property_is_a_fuzz_target_and_every_fuzz_target_a_property() {
    let properties: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    for folder in ["corpus", "fuzz_targets"] {
        let files = std::fs::read_dir(fuzz().join(folder)).unwrap();
        let stems = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
        assert_eq!(stems.collect::<BTreeSet<_>>(), properties, "{folder}");
    }
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for target in &properties {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in the manifest");
    }
}

/// What is likely to matter: quotes, ends of numbers, what is not UTF-8.
const WORDS: &[&[u8]] = &[
    b"",
    b"\"",
    b"\\u0000",
    b"{",
    b"[",
    b"null",
    b"-1",
    b"1e400",
    b"9223372036854775808",
    b"18446744073709551615",
    b"0.1",
    b"\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\n",
    b"=",
    b"EUR",
    b"JPY",
    b"\"\"",
    b"true",
    b",",
];

/// A change: at one place some bytes go, and a word comes.
type Change = (Index, usize, &'static [u8]);

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (at, gone, word) in changes {
        let from = at.index(bytes.len() + 1);
        let to = bytes.len().min(from + gone);
        bytes.splice(from..to, word.iter().copied());
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((any::<Index>(), 0..6_usize, select(WORDS)), 1..5)
}

macro_rules! properties {
    ($($target:ident),* $(,)?) => {$(
        mod $target {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn holds_for_what_chance_makes_of_the_corpus(file in any::<Index>(), changes in changes()) {
                    let files = corpus(stringify!($target));
                    let (_, bytes) = file.get(&files);
                    property(stringify!($target))(&changed(bytes.clone(), &changes));
                }

                #[test]
                fn holds_for_anything(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
                    property(stringify!($target))(&bytes);
                }

                #[test]
                fn holds_for_any_text(choice: u8, text in any::<String>()) {
                    property(stringify!($target))(text.as_bytes());
                    property(stringify!($target))(&[&[choice], text.as_bytes()].concat());
                }
            }
        }
    )*};
}

properties!(
    bundle,
    bus_event,
    configuration,
    database_url,
    outcome,
    registering,
    request,
    snapshot,
    stored_event,
    token,
);

/// What stands in the golden samples of the domain, under the name of each file.
fn golden(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../internal/domain").join(folder);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn every_golden_sample_is_in_the_corpus() {
    let targets = ["stored_event", "outcome", "bundle", "registering"];
    let seeds: Vec<Vec<u8>> = targets.into_iter().flat_map(corpus).map(|(_, bytes)| bytes).collect();
    for (name, sample) in golden("golden").into_iter().chain(golden("golden_commands")) {
        let sample = sample.trim_ascii_end();
        let is_in = |seed: &Vec<u8>| seed.windows(sample.len()).any(|window| window == sample);
        assert!(seeds.iter().any(is_in), "{name} is in no file of the corpus");
    }
}

#[test]
fn the_corpus_is_read_where_it_can_be() {
    for (path, bytes) in corpus("snapshot") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let kind = name.split('_').next().unwrap().replace("missing", "investor");
        let aggregate = AggregateRef { kind: kind.clone().into(), id: Uuid::from_u128(1) };
        let snapshot = EncodedSnapshot { schema: 1, data: String::from_utf8(bytes[1..].to_vec()).unwrap() };
        assert_eq!(Financing::decode_snapshot(&aggregate, &snapshot).is_some(), kind != "stranger", "{name}");
    }
    for (path, bytes) in
        corpus("bundle").into_iter().filter(|(_, bytes)| bytes.starts_with(b"[{\"command_id"))
    {
        for slot in unpack(Partition::from_index(3), 7, &bytes) {
            let is_command = matches!(&slot, Slot::Envelope(envelope)
                if serde_json::from_str::<Command>(envelope.command.get()).is_ok());
            let is_nonsense = matches!(&slot, Slot::Unreadable { raw, .. } if raw.contains("nonsense"));
            assert!(is_command || is_nonsense, "{}: {slot:?}", path.display());
        }
    }
}
