//! Log lines to standard error.
//!
//! Lines are written by the thread that logs, so nothing on the media path may log; the level can
//! change while the server runs.

use std::io;

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Changes the level of the running log.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<LevelFilter, Registry>);

impl LogHandle {
    pub fn set_level(&self, level: LogLevel) {
        // Fails only when the subscriber is gone, and then there is no log to set.
        let _ = self.0.modify(|filter| *filter = filter_of(level));
    }
}

/// Sends all events of the process to standard error.
///
/// # Errors
/// The process has a log already.
pub fn init(config: LogConfig) -> Result<LogHandle, TryInitError> {
    let (subscriber, handle) = subscriber(config, io::stderr);
    subscriber.try_init()?;
    Ok(handle)
}

fn subscriber<W>(config: LogConfig, writer: W) -> (impl Subscriber + Send + Sync, LogHandle)
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter_of(config.level));
    (
        tracing_subscriber::registry()
            .with(filter)
            .with(lines(config.format, writer)),
        LogHandle(handle),
    )
}

fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use simd_json::prelude::ValueAsScalar;

    use super::*;

    /// What was written, shared by the clones that the subscriber makes.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(level: LogLevel, format: LogFormat, events: impl FnOnce(&LogHandle)) -> String {
        let page = Page::default();
        let writer = page.clone();
        let (subscriber, handle) = subscriber(LogConfig { level, format }, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || events(&handle));
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_lines_carry_level_message_and_fields() {
        let text = written(LogLevel::Info, LogFormat::Text, |_| {
            tracing::info!(room = "blue", "created");
            tracing::debug!("unseen");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(" INFO ") && text.contains("created") && text.contains("room=\"blue\""),
            "{text}"
        );
    }

    #[test]
    fn json_lines_are_objects() {
        let mut line = written(LogLevel::Info, LogFormat::Json, |_| {
            tracing::warn!(core = 3, "late")
        })
        .into_bytes();
        let line = simd_json::to_borrowed_value(&mut line).unwrap();
        assert_eq!(
            (line["level"].as_str(), line["message"].as_str()),
            (Some("WARN"), Some("late"))
        );
        assert_eq!(line["core"].as_u64(), Some(3));
    }

    #[test]
    fn the_level_changes_while_running() {
        let text = written(LogLevel::Error, LogFormat::Text, |handle| {
            tracing::info!("one");
            handle.set_level(LogLevel::Debug);
            tracing::debug!("two");
            handle.set_level(LogLevel::Error);
            tracing::info!("three");
        });
        assert!(
            !text.contains("one") && text.contains("two") && !text.contains("three"),
            "{text}"
        );
    }
}
