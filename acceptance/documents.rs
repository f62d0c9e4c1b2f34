//! What the documents say is what the code does.

use std::collections::BTreeSet;

use domain::refusal::CATALOGUE;

pub(crate) fn document(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
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
