//! What a process tells about itself, and where to.

use std::{path::Path, time::Duration};

use clap::{Args, ValueEnum};

/// Command-line flags and environment variables of every Hearth process.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Telemetry")]
#[group(id = "telemetry")]
pub struct Flags {
    /// Which log lines to print on stderr: a level, or `target=level` pairs separated by commas
    #[arg(
        long = "log",
        env = "HEARTH_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log: String,

    /// How log lines look
    #[arg(
        long = "log-format",
        env = "HEARTH_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,

    /// Send traces and metrics to this OTLP/gRPC endpoint, such as http://127.0.0.1:4317; nothing is sent when unset
    #[arg(
        long = "otlp-endpoint",
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,

    /// Share of new traces to record, from 0 to 1; traces that a caller began follow the caller's choice
    #[arg(
        long = "trace-ratio",
        env = "HEARTH_TRACE_RATIO",
        default_value_t = 1.0,
        value_name = "SHARE"
    )]
    pub trace_ratio: f64,

    /// How often metrics are sent, in milliseconds
    #[arg(long = "metrics-interval-ms", env = "HEARTH_METRICS_INTERVAL_MS", default_value_t = 10_000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub metrics_interval_ms: u64,

    /// Name of this process among its peers (`service.instance.id`) [default: host name and process id]
    #[arg(long = "instance", env = "HEARTH_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
}

/// Look of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// A line for people; coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Validated settings; see [`Flags::validated`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `tracing-subscriber` directives.
    pub log: String,
    /// Look of the log.
    pub log_format: LogFormat,
    /// OTLP/gRPC endpoint; `None` sends nothing.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces to record.
    pub trace_ratio: f64,
    /// Time between two exports of metrics.
    pub metrics_interval: Duration,
    /// `service.instance.id`.
    pub instance: String,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// `--log` is not a list of directives.
    #[error("--log {filter:?}: {reason}")]
    Log {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--otlp-endpoint` is not an `http://` address.
    #[error("--otlp-endpoint {endpoint:?}: {reason}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `--trace-ratio` is not a share.
    #[error("--trace-ratio {ratio}: must lie between 0 and 1")]
    Ratio {
        /// What was given.
        ratio: f64,
    },
}

// === impl Flags ===

impl Flags {
    /// Checks every flag.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn validated(self) -> Result<Config, ConfigError> {
        if let Err(error) = self.log.parse::<tracing_subscriber::EnvFilter>() {
            return Err(ConfigError::Log {
                filter: self.log,
                reason: error.to_string(),
            });
        }
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return Err(ConfigError::Ratio {
                ratio: self.trace_ratio,
            });
        }
        // An empty variable is how a shell unsets one for a child.
        let otlp_endpoint = self.otlp_endpoint.filter(|endpoint| !endpoint.is_empty());
        if let Some(endpoint) = &otlp_endpoint {
            check_endpoint(endpoint).map_err(|reason| ConfigError::Endpoint {
                endpoint: endpoint.clone(),
                reason,
            })?;
        }
        Ok(Config {
            log: self.log,
            log_format: self.log_format,
            otlp_endpoint,
            trace_ratio: self.trace_ratio,
            metrics_interval: Duration::from_millis(self.metrics_interval_ms),
            instance: self.instance.unwrap_or_else(default_instance),
        })
    }
}

// === impl Config ===

impl Config {
    /// Logs on stderr at `info`, nothing sent: for programs that are not a service.
    #[must_use]
    pub fn logs_only() -> Config {
        Config {
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            trace_ratio: 1.0,
            metrics_interval: Duration::from_secs(10),
            instance: default_instance(),
        }
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let uri = endpoint.parse::<http::Uri>().map_err(|_| "not a URL")?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some() => Ok(()),
        Some("https") => {
            Err("TLS to the collector is not built in; use http:// to a collector on this host")
        }
        _ => Err("must be http://HOST:PORT"),
    }
}

fn default_instance() -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "localhost" } else { host };
    format!("{host}:{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            log: "info".to_owned(),
            log_format: LogFormat::Json,
            otlp_endpoint: None,
            trace_ratio: 1.0,
            metrics_interval_ms: 1000,
            instance: Some("here".to_owned()),
        }
    }

    #[test]
    fn defaults_are_valid() {
        let config = flags().validated().unwrap();
        assert_eq!(config.instance, "here");
        assert_eq!(config.metrics_interval, Duration::from_secs(1));
    }

    #[test]
    fn an_empty_endpoint_means_none() {
        let config = Flags {
            otlp_endpoint: Some(String::new()),
            ..flags()
        }
        .validated()
        .unwrap();
        assert_eq!(config.otlp_endpoint, None);
    }

    #[test]
    fn endpoints() {
        let check = |endpoint: &str| {
            Flags {
                otlp_endpoint: Some(endpoint.to_owned()),
                ..flags()
            }
            .validated()
            .is_ok()
        };
        assert!(check("http://127.0.0.1:4317"));
        assert!(check("http://collector.monitoring:4317/"));
        assert!(!check("https://collector:4317"));
        assert!(!check("127.0.0.1:4317"));
        assert!(!check("grpc://x:1"));
        assert!(!check("http://"));
    }

    #[test]
    fn bad_values_are_named() {
        for ratio in [f64::NAN, -0.1, 1.1] {
            let error = Flags {
                trace_ratio: ratio,
                ..flags()
            }
            .validated()
            .unwrap_err();
            assert!(error.to_string().contains("--trace-ratio"), "{error}");
        }
        let error = Flags {
            log: "engine=loud".to_owned(),
            ..flags()
        }
        .validated()
        .unwrap_err();
        assert!(error.to_string().contains("--log"), "{error}");
    }
}
