//! The binary `latitude`: see the library beside it.

const _: () = assert!(
    !latitude_probe::PLANTED,
    "this program would hold somebody's data: it is not built with planted bugs in it"
);

fn main() -> std::process::ExitCode {
    latitude_server::main()
}
