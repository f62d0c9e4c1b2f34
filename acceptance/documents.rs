//! What the documents say is what the code does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use domain::refusal::CATALOGUE;

pub(crate) fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_published_catalogue_is_the_one_of_the_domain() {
    let published: BTreeSet<String> = document("docs/reasons.md")
        .split("## Of the platform")
        .next()
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(ToOwned::to_owned)
        .collect();
    let known: BTreeSet<String> =
        CATALOGUE.iter().map(|reason| format!("| `{}` | {} |", reason.code, reason.meaning)).collect();
    assert_eq!(published, known);
}

#[test]
fn the_readme_names_every_setting() {
    let readme = document("README.md");
    for name in invoice_financing::runtime::config::NAMES {
        assert!(readme.contains(&format!("`{name}`")), "README.md does not name {name}");
    }
}

#[test]
fn the_readme_links_to_what_is_there() {
    let readme = document("README.md");
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
        document(link);
    }
}

/// An alert of the rules that Prometheus loads.
#[derive(Debug, Default)]
struct Alert {
    name: String,
    expression: String,
    urgency: String,
    entry: String,
}

/// The alerts of deploy/alerts.yml, which has a line for each of these.
fn alerts() -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    for line in document("deploy/alerts.yml").lines() {
        let line = line.trim_start().trim_start_matches("- ");
        if let Some(name) = line.strip_prefix("alert: ") {
            alerts.push(Alert { name: name.to_owned(), ..Alert::default() });
        }
        let Some(alert) = alerts.last_mut() else { continue };
        for (key, place) in [
            ("expr: ", &mut alert.expression),
            ("severity: ", &mut alert.urgency),
            ("runbook: ", &mut alert.entry),
        ] {
            if let Some(value) = line.strip_prefix(key) {
                place.push_str(value);
            }
        }
    }
    alerts
}

/// The anchors of a page's headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.split_once("# "));
    let headings = headings.filter(|(level, _)| level.chars().all(|c| c == '#')).map(|(_, heading)| heading);
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_alert_is_explained_and_leads_to_an_entry_of_the_runbook() {
    let (page, entries) = (document("docs/alerts.md"), anchors(&document("docs/runbook.md")));
    let alerts = alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for Alert { name, expression, urgency, entry } in &alerts {
        let row = format!("| `{name}` |");
        let row = page.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("docs/alerts.md has no row for {name}"));
        assert!(
            page.contains(&format!("\n{expression}\n")),
            "docs/alerts.md has not the expression of {name}"
        );
        assert!(["page", "ticket"].contains(&urgency.as_str()), "{name}: {urgency}");
        assert!(row.contains(&format!("| {urgency} |")), "{name} is a {urgency}: {row}");
        let anchor = entry.strip_prefix("docs/runbook.md#").unwrap_or_else(|| panic!("{name}: {entry}"));
        assert!(entries.contains(anchor), "docs/runbook.md has no entry {anchor}, to which {name} leads");
        assert!(row.contains(&format!("(runbook.md#{anchor})")), "{name} leads to {anchor}: {row}");
    }
    let explained = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(explained, alerts.len(), "docs/alerts.md has a row for an alert that is not there");
}

/// What the platform is made of: path and text of every file, each string in one line.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("internal")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let of_tests = ["tests", "tests.rs", "testkit", "verify", "target"].contains(&name);
            if path.is_dir() && !of_tests {
                folders.push(path);
            } else if [".rs", ".sql"].iter().any(|end| name.ends_with(end)) && !of_tests {
                let text = std::fs::read_to_string(&path).unwrap();
                let mut lines = text.split("\\\n");
                let mut whole = lines.next().unwrap().to_owned();
                lines.for_each(|line| whole.push_str(line.trim_start()));
                sources.push((path, whole));
            }
        }
    }
    sources
}

/// The messages that the runbook lists: the lines of its blocks of text.
fn messages(runbook: &str) -> Vec<&str> {
    let blocks = runbook.split("```text\n").skip(1);
    blocks.flat_map(|block| block.split("```").next().unwrap().lines()).collect()
}

#[test]
fn every_message_of_the_runbook_stands_in_the_source() {
    let (runbook, sources) = (document("docs/runbook.md"), sources());
    let messages = messages(&runbook);
    assert!(messages.len() > 30, "{messages:?}");
    for message in messages {
        let mut words = 0;
        for piece in message.split('…').map(str::trim).filter(|piece| piece.len() > 2) {
            assert!(
                sources.iter().any(|(_, source)| source.contains(piece)),
                "nobody says {piece:?}: {message}"
            );
            words = words.max(piece.len());
        }
        assert!(words > 8, "too little of it is always the same: {message}");
    }
}

/// The string that the source goes on with, behind spaces; `None` where it goes on with something else.
fn string(source: &str) -> Option<&str> {
    let source = source.trim_start();
    let source = source.strip_prefix("format!(").unwrap_or(source).trim_start();
    source.strip_prefix('"')?.split('"').next()
}

#[test]
fn every_message_that_halts_stands_in_the_runbook() {
    let runbook = document("docs/runbook.md");
    let messages = messages(&runbook);
    let mut looked = 0;
    for (path, source) in sources() {
        let says_why = path.ends_with("nats/error.rs") || path.ends_with("postgres/error.rs");
        let mut begins = vec!["Trouble::Halt(", "PortError::Broken("];
        begins.extend(says_why.then_some("#[error("));
        begins.extend(path.ends_with("sqlite/error.rs").then_some("write!(f, "));
        let product = source.split("#[cfg(test)]").next().unwrap();
        // What a call is answered with halts nobody.
        if path.components().any(|part| part.as_os_str() == "readmodel") {
            continue;
        }
        for begin in begins {
            for text in product.split(begin).skip(1).filter_map(string) {
                let pieces = text.split('{').flat_map(|part| part.split('}'));
                let longest = pieces.max_by_key(|piece| piece.len()).unwrap().trim();
                if longest.len() > 8 {
                    looked += 1;
                    let listed = messages.iter().any(|message| message.contains(longest));
                    assert!(listed, "docs/runbook.md does not list {text:?} of {}", path.display());
                }
            }
        }
    }
    assert!(looked > 40, "{looked}");
}

#[test]
fn the_pages_for_operators_link_to_what_is_there() {
    for page in ["docs/alerts.md", "docs/runbook.md"] {
        let text = document(page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let there = if path.is_empty() { text.clone() } else { document(&format!("docs/{path}")) };
            assert!(anchor.is_empty() || anchors(&there).contains(anchor), "{page}: {link}");
        }
    }
}
