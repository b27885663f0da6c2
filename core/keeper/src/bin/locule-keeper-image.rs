//! Writes the keeper's executable to standard output, for `make install`.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    if locule_keeper::IMAGE.is_empty() {
        eprintln!("locule-keeper-image: this build has no keeper image");
        return ExitCode::FAILURE;
    }
    match io::stdout().write_all(locule_keeper::IMAGE) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("locule-keeper-image: {error}");
            ExitCode::FAILURE
        }
    }
}
