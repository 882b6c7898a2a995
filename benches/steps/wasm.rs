//! From compiled code to an instance, and one request to a function.

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use criterion::Criterion;
use wasm_exec::{
    CacheError, CodeCache, Command, Compiled, Engine, Instance, Profile, Program,
    http::{Bounds, Function, Serving, Setting, Stop, serve},
};

const COMMAND: &str = include_str!("../../runtime/demo/vessel.wat");
const FUNCTION: &str = include_str!("../../runtime/demo/function.wat");
/// Any will do in a cache of its own.
const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub(crate) fn steps(criterion: &mut Criterion) {
    let (folder, profile) = (tempfile::tempdir().unwrap(), Profile::default());
    let cache = |name: &str| CodeCache::new(folder.path().join(name), folder.path().join("checked"));
    let (commands, functions) = (cache("commands"), cache("functions"));
    compile(&commands, COMMAND);
    let load = || {
        let code = commands.lookup(black_box(DIGEST), profile).unwrap().code().unwrap();
        Program::load(&Engine::new(profile).unwrap(), code).unwrap()
    };
    criterion.bench_function("deserialise code", |bench| bench.iter(load));
    let program = load();
    criterion.bench_function("instantiate", |bench| {
        bench.iter(|| Instance::new(black_box(&program), &granted_nothing()).unwrap());
    });
    let code = compile(&functions, FUNCTION);
    one_request(criterion, Function::load(code, Bounds { requests: 20, ..Bounds::default() }, false).unwrap());
}

fn compile(cache: &CodeCache, text: &str) -> Compiled {
    let wasm = || Ok::<_, CacheError>(wat::parse_str(text).unwrap());
    cache.compile(DIGEST, Profile::default(), wasm).unwrap()
}

fn granted_nothing() -> Command {
    Command::new(vec!["step".into()])
}

/// Over one connection: its making is no part of a call.
fn one_request(criterion: &mut Criterion, function: Function) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    let stop = Stop::new();
    let setting = Setting {
        listeners: vec![listener],
        threads: 1,
        stop: stop.clone(),
        serving: Serving { log: Box::new(|_| {}), reuse: 1, cpu_millis: None, core_dump: None },
        note: Box::new(|_| {}),
    };
    let served = thread::spawn(move || serve(function, granted_nothing(), setting));
    criterion.bench_function("one wasi:http call, over HTTP/1.1 on loopback", |bench| {
        bench.iter(|| ask(&mut stream));
    });
    drop(stream);
    stop.request();
    served.join().unwrap().unwrap();
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    // The last, empty chunk.
    while !answer.ends_with(b"0\r\n\r\n") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the server went away");
        answer.extend_from_slice(&buffer[..count]);
    }
}
