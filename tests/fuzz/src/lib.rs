//! The pure steps of the bridge, from its own files, for the fuzz targets beside this one; `.ci/fuzz`
//! runs them.

#[path = "../../../src"]
#[allow(dead_code, reason = "the rest of the bridge uses it")]
mod bridge {
    pub mod auth;
    pub mod config;
    pub mod event;
    pub mod outcome;
    pub mod pseudonym;
    pub mod route;
    pub mod watch;
}

pub use bridge::{auth, config, event, outcome, pseudonym, route, watch};
