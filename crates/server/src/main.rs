//! The binary `latitude`: see the library beside it.

fn main() -> std::process::ExitCode {
    latitude_server::main()
}
