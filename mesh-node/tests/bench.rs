//! `mesh-node bench session` runs to its end, over both transports.
#![expect(clippy::unwrap_used, reason = "a test helper may panic")]

use std::process::Command;

use serde_json::Value;

/// One short figure, from the one line that is printed.
fn bench(transport: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-node"));
    command.args(["bench", "session", "--json", "--transport", transport]);
    command.args(["--secs", "0.05", "--size", "1000", "--in-flight", "8"]);
    let out = command.output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(text.lines().count(), 1);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn sealed_calls_are_measured_over_tcp_and_over_grpc() {
    for transport in ["tcp", "grpc"] {
        let figures = bench(transport);
        let row = &figures["rows"][0];
        assert_eq!(row["size"], 1000, "{transport}");
        for figure in ["seq_rps", "par_rps", "par_p99_us", "cpu_server_us"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{transport} {figure}");
        }
        assert!(figures["setup_ms"].as_f64().unwrap() > 0.0, "{transport}");
    }
}
