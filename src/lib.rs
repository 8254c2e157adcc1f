//! draft
pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod event;
pub mod health;
pub mod http;
pub mod ingest;
pub mod kafka;
pub mod metrics;
pub mod outcome;
pub mod route;
pub mod serve;
