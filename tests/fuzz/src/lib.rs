//! The pure steps of the bridge, compiled from its own files for the fuzz targets; `.ci/fuzz` runs them.

#[path = "../../../src"]
#[allow(dead_code, unused_imports, reason = "the rest of the bridge uses it")]
mod bridge {
    pub mod click;
    pub mod config;
}

pub use bridge::{click, config};
