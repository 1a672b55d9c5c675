use std::process::ExitCode;

fn main() -> ExitCode {
    posthorn_process::main::<dispatcher::DispatcherService>()
}
