//! Explores all scenarios, the large ones too, and says what it saw.

use std::process::ExitCode;
use std::time::Instant;

use model::{LARGE, SMALL, explore};

#[expect(clippy::disallowed_methods, reason = "it only says how long it took")]
fn main() -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, scenario, unique) in SMALL.iter().chain(LARGE) {
        let begun = Instant::now();
        let seen = explore(*scenario);
        println!("{name}: {seen}; {:.1?}", begun.elapsed());
        if !seen.breaches.is_empty() || seen.unique != *unique {
            code = ExitCode::FAILURE;
        }
    }
    code
}
