//! The settings of traces and metrics, of every program.
//!
//! The rule this module protects: nothing is told to anybody unless somebody asks for it.

use std::net::SocketAddr;

use clap::Args;

use super::ratio::Ratio;
use crate::runtime::config::{bind_address, client_address};

/// What is told to whom.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetrySettings {
    /// Where traces go: the address of a collector that speaks OTLP over gRPC; none unless it is set
    #[arg(long, env = "FINANCING_OTLP_ENDPOINT", value_parser = client_address)]
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that begin here is kept, from 0 to 1; a trace that a client began is the client's to keep
    #[arg(long, env = "FINANCING_TRACE_RATIO", default_value = "1")]
    pub trace_ratio: Ratio,
    /// Where metrics are answered: host:port, as HTTP GET /metrics; nowhere unless it is set
    #[arg(long, env = "FINANCING_METRICS_ADDR", value_parser = bind_address)]
    pub metrics_addr: Option<SocketAddr>,
}
