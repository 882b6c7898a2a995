//! Micro-benchmarks: what one step of a start costs in this process. `amphora bench` measures whole starts.
//!
//! ```text
//! cargo run --release -p amphora-benches [STORE IMAGE]
//! ```
//!
//! With a store (ROOT of an installation) and the name of an image in it, looking that up is measured too.

use std::{hint::black_box, path::Path, time::Instant};

use images::{Reference, Selection, Store};

/// Of each step the cheapest and the middle one of so many batches are told.
const BATCHES: usize = 31;
/// A batch has so many steps that it takes about this long.
const BATCH_NANOS: u128 = 5_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    measure("parse a short reference", || black_box("alpine").parse::<Reference>().is_ok());
    measure("parse a long reference", || {
        black_box("registry.example.org:5000/team/project/image:v1.2.3").parse::<Reference>().is_ok()
    });
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [root, name] = words.as_slice() {
        let store = Store::open(Path::new(root))?;
        if store.resolve(name, &Selection::default())?.is_none() {
            return Err(format!("no image {name} in {root}").into());
        }
        measure("open the store", || Store::open(Path::new(black_box(root))).is_ok());
        measure("resolve: list, manifest, config, class", || {
            store.resolve(black_box(name), &Selection::default()).is_ok()
        });
    }
    Ok(())
}

/// Prints what one call takes.
fn measure(name: &str, step: impl Fn() -> bool) {
    let begun = Instant::now();
    let mut calls = 0;
    while begun.elapsed().as_nanos() < BATCH_NANOS {
        black_box(step());
        calls += 1;
    }
    let batch = || {
        let begun = Instant::now();
        for _ in 0..calls {
            black_box(step());
        }
        begun.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let mut nanos: Vec<f64> = (0..BATCHES).map(|_| batch()).collect();
    nanos.sort_by(f64::total_cmp);
    println!("{name:<44} {:>10.0} ns at least, {:>10.0} ns in the middle", nanos[0], nanos[BATCHES / 2]);
}
