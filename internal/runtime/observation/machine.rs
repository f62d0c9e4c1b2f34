//! What the process takes of its machine, where the operating system tells.
//!
//! The rule this module protects: what is not known is not told.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric as _};
use prometheus_client::registry::Unit;

/// What one of the kernel's ticks is worth, wherever Linux runs: a hundredth of a second.
const TICK: Duration = Duration::from_millis(10);

/// Reads `/proc/self` whenever somebody asks.
#[derive(Debug)]
pub(super) struct Machine;

impl Collector for Machine {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(bytes) = resident() {
            let help = "Memory of the process that is in RAM.";
            let kind = ConstGauge::<i64>::TYPE;
            ConstGauge::new(bytes).encode(encoder.encode_descriptor(
                "process_resident_memory",
                help,
                Some(&Unit::Bytes),
                kind,
            )?)?;
        }
        if let Some(spent) = processor() {
            let help = "Processor time of the process, in user and in system mode.";
            let unit = Some(&Unit::Seconds);
            let descriptor = encoder.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?;
            ConstCounter::new(spent.as_secs_f64()).encode(descriptor)?;
        }
        Ok(())
    }
}

/// Bytes in RAM.
fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}

/// Time on a processor.
fn processor() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some(TICK.saturating_mul(user.saturating_add(system)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_takes() {
        assert!(resident().is_some_and(|bytes| bytes > 1024 * 1024));
        assert!(processor().is_some());
    }
}
