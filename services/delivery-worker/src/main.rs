use std::process::ExitCode;

fn main() -> ExitCode {
    posthorn_process::main::<delivery_worker::DeliveryWorkerService>()
}
