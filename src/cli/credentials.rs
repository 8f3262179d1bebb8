//! What commands have in common that speak to a registry or a store.

use crate::discovery::registry::place::Place;
use std::path::PathBuf;

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Credentials {
    /// Who asks, toward a registry or store that wants to know.
    #[arg(long, requires = "password_file")]
    username: Option<String>,
    /// A file with what proves it.
    #[arg(long, requires = "username")]
    password_file: Option<PathBuf>,
    /// A file with a token (Consul).
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Speak TLS with the registry or store, and trust the authorities in this file.
    #[arg(long)]
    ca: Option<PathBuf>,
}

impl Credentials {
    /// The same place, with them.
    pub(super) fn at(self, place: Place) -> Place {
        let Credentials { username, password_file, token_file, ca } = self;
        place.with(username, password_file, token_file, ca)
    }
}
