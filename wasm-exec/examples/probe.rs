//! temporary
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use wasm_exec::*;
fn faults() -> u64 {
    std::fs::read_to_string("/proc/self/stat").unwrap().split(' ').nth(9).unwrap().parse().unwrap()
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let cache = CodeCache::new(PathBuf::from("/tmp/wx/compiled"));
    let get = |n: &str| std::env::var(n).ok();
    let fuel = get("FUEL").map(|f| f.parse().unwrap());
    let sha = |f: &str| {
        let mut s: String = f.bytes().map(|b| format!("{b:02x}")).collect();
        s.truncate(64);
        format!("{s:0>64}")
    };
    match args[1].as_str() {
        "noop" => {}
        "compile" => {
            let w = wat::parse_file(&args[2]).unwrap();
            let t = Instant::now();
            cache.compile(&sha(&args[2]), &w, fuel.is_some()).unwrap();
            eprintln!("{:?}", t.elapsed());
        }
        "imports" => {
            let w = wat::parse_file(&args[2]).unwrap();
            let t = Instant::now();
            let r = unprovided_imports(&w, NetworkGrant::None);
            eprintln!("{r:#?} {:?}", t.elapsed());
        }
        "lookup" => {
            cache.lookup(&sha(&args[2]), false).unwrap().unwrap();
        }
        "run" => {
            let f0 = faults();
            let t0 = Instant::now();
            let code = cache.lookup(&sha(&args[2]), fuel.is_some()).unwrap().unwrap();
            let t1 = Instant::now();
            let f1 = faults();
            let preopens = get("DIRS")
                .iter()
                .flat_map(|d| {
                    d.split(',')
                        .map(|x| {
                            let (h, g) = x.split_once(':').unwrap();
                            Preopen { host: h.into(), guest: g.into(), writable: true }
                        })
                        .collect::<Vec<_>>()
                })
                .collect();
            let t2 = Instant::now();
            let r = run(Command {
                code,
                argv: args[2..].to_vec(),
                env: vec![],
                preopens,
                cwd: get("CWD"),
                network: if get("NET").is_some() { NetworkGrant::All } else { NetworkGrant::None },
                memory_bytes: get("MEM").map(|f| f.parse().unwrap()),
                fuel,
                timeout: get("TIMEOUT").map(|f| Duration::from_millis(f.parse().unwrap())),
            });
            let t3 = Instant::now();
            let f2 = faults();
            if get("Q").is_none() {
                eprintln!("lookup {:?} {} faults; run {:?} {} faults", t1 - t0, f1 - f0, t3 - t2, f2 - f1);
                match r {
                    Ok(r) => {
                        eprintln!("{r:?}");
                        if let Outcome::Trapped { backtrace, .. } | Outcome::TimedOut { backtrace } = r.outcome {
                            eprintln!("{backtrace}");
                        }
                    }
                    Err(e) => eprintln!("ERR {e}"),
                }
            }
        }
        _ => {}
    }
}
