use std::process::ExitCode;

fn main() -> ExitCode {
    posthorn_process::main::<ingress_gateway::GatewayService>()
}
