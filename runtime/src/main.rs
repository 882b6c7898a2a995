//! `amphora`: one runtime for Linux and Wasm OCI images.

fn main() -> std::process::ExitCode {
    amphora::main()
}
