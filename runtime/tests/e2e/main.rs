//! The real binary, on real images from a real registry: what a user types, and what must come of it.
//!
//! `cargo xtask test` starts the registry and names it in `AMPHORA_TEST_REGISTRY` and its siblings; without it these tests
//! skip. They run as root, as an ordinary user and on a slow second kernel: nothing here depends on how long a thing takes,
//! and what only some users may do (limits that need a cgroup) is asked for first.

mod archives;
mod attach;
mod bad_input;
mod bench;
mod bench_page;
mod browser;
mod code;
mod copy;
mod crash;
mod day;
mod docker;
mod elsewhere;
mod escapes;
mod events;
mod files;
mod functions;
mod images;
mod isolation;
mod life;
mod lifecycle;
mod limits;
mod lost;
mod mounts;
mod namespaces;
mod networks;
mod networks_bad_days;
mod networks_connect;
mod networks_damaged;
mod networks_default;
mod outbound;
mod parallel;
mod published;
mod registry;
mod rootless_networks;
mod run;
mod sandbox;
mod serve;
mod serve_answers;
mod serve_bad_days;
mod serve_cgi;
mod serve_clients;
mod serve_h2;
mod serve_operate;
mod serve_page;
mod serve_within;
mod services;
mod session;
mod settings;
mod spin;
mod store;
mod terminal;
mod volumes;
mod wasm_bad_input;
mod wasm_calls;
mod wasm_debug;
mod wasm_files;
mod wasm_networks;
