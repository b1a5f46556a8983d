//! LoadModel: attach, prefetch or load, with progress.

use std::{future::pending, sync::Arc, time::Duration};

use engine::{LoadProgress, LoadStats};
use proto::inference::v1::{LoadMode, LoadModelRequest, LoadModelResponse, LoadPhase};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::{Instrument as _, Span, info_span};

use crate::{
    answers::{Answers, Sink, answers},
    daemon::Daemon,
    deadline::Deadline,
    error::Error,
    gate::Pass,
    models::{Attached, Models, Parts, Until, load_span, proto_load},
};

/// Time between two words on progress; ten a second are promised.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(80);

/// A checked LoadModelRequest.
#[derive(Debug, PartialEq)]
pub(crate) struct Load {
    model: String,
    mode: Mode,
    pin: bool,
    keep_alive: Option<Duration>,
    replace: Option<String>,
}

/// How far to bring a model.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Until the plan stands.
    Lazy,
    /// Until the bytes are in the page cache.
    Prefetch,
    /// Until the bytes are on the device.
    Eager,
}

impl TryFrom<LoadModelRequest> for Load {
    type Error = Error;

    /// # Errors
    /// [`Error::Invalid`].
    fn try_from(request: LoadModelRequest) -> Result<Load, Error> {
        let mode = match LoadMode::try_from(request.mode) {
            Ok(LoadMode::Unspecified | LoadMode::Lazy) => Mode::Lazy,
            Ok(LoadMode::Prefetch) => Mode::Prefetch,
            Ok(LoadMode::Eager) => Mode::Eager,
            Err(_) => return Err(Error::invalid("mode", "must be LAZY, PREFETCH or EAGER")),
        };
        if request.model.is_empty() {
            return Err(Error::invalid("model", "must be set"));
        }
        if request.replace == request.model {
            return Err(Error::invalid("replace", "must be another model"));
        }
        let keep_alive = request.keep_alive.map(Duration::try_from).transpose();
        let keep_alive = keep_alive
            .ok()
            .filter(|keep_alive| *keep_alive != Some(Duration::ZERO));
        let keep_alive =
            keep_alive.ok_or_else(|| Error::invalid("keep_alive", "must be longer than 0"))?;
        Ok(Load {
            model: request.model,
            mode,
            pin: request.pin,
            keep_alive,
            replace: Some(request.replace).filter(|replace| !replace.is_empty()),
        })
    }
}

// === impl Mode ===

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Lazy => "lazy",
            Mode::Prefetch => "prefetch",
            Mode::Eager => "eager",
        }
    }
}

/// Begins a load; it runs as its answers are read and ends with them.
pub(crate) fn start(
    models: Models,
    load: Load,
    pass: Pass,
    deadline: Deadline,
) -> Answers<LoadModelResponse> {
    answers(Span::current(), move |sink| async move {
        deadline.bound(pass.bound(run(&models, &load, &sink))).await
    })
}

/// A model of `--preload` that is made ready while the device is being opened.
#[derive(Debug)]
pub(crate) struct Preparing {
    pub(crate) model: String,
    span: Span,
    parts: JoinHandle<Result<Parts, Error>>,
}

/// A model of `--preload`: attached, its weights still to come.
#[derive(Debug)]
pub(crate) struct Preloaded {
    attached: Arc<Attached>,
    span: Span,
}

// === impl Preparing ===

impl Preparing {
    /// Begins to bring together what `model` needs before the device does.
    pub(crate) fn begin(daemon: &Daemon, fetch_timeout: Duration, model: &str) -> Preparing {
        let span = load_span(model, Mode::Eager.name());
        let (daemon, id) = (daemon.clone(), model.to_owned());
        let bring = async move { Parts::bring(&daemon, fetch_timeout, &id).await };
        Preparing {
            model: model.to_owned(),
            parts: tokio::spawn(bring.instrument(span.clone())),
            span,
        }
    }

    /// Attaches the model. Where its parts did not come together, everything is tried again, and says itself what is amiss.
    ///
    /// # Errors
    /// Those of an attach.
    pub(crate) async fn attach(self, models: &Models) -> Result<Preloaded, Error> {
        let parts = self.parts.await.ok().and_then(Result::ok);
        Preloaded::attach_parts(models, &self.model, parts, self.span).await
    }
}

// === impl Preloaded ===

impl Preloaded {
    /// Attaches `model`.
    ///
    /// # Errors
    /// Those of an attach.
    pub(crate) async fn attach(models: &Models, model: &str) -> Result<Preloaded, Error> {
        let span = load_span(model, Mode::Eager.name());
        Preloaded::attach_parts(models, model, None, span).await
    }

    async fn attach_parts(
        models: &Models,
        model: &str,
        parts: Option<Parts>,
        span: Span,
    ) -> Result<Preloaded, Error> {
        let attaching = models.attach_parts(model, false, parts, || span.clone());
        let attached = attaching.await?;
        attached.begin_load(span.clone(), Until::Told);
        Ok(Preloaded { attached, span })
    }

    /// Brings its weights onto the device.
    ///
    /// # Errors
    /// [`Error::Engine`]; the weights then come as steps need them.
    pub(crate) async fn fetch(self, models: &Models) -> Result<(), Error> {
        let (progress, _watched) = watch::channel(LoadProgress::default());
        let fetching = fetch(models, &self.attached.id, progress);
        carry(&self.attached, &self.span, fetching).await?;
        Ok(())
    }
}

async fn run(models: &Models, load: &Load, sink: &Sink<LoadModelResponse>) -> Result<(), Error> {
    if let Some(replace) = &load.replace {
        models.attached(replace)?;
    }
    let span = load_span(&load.model, load.mode.name());
    let attached = attach(models, load, &span, sink).await?;
    if let Some(replace) = &load.replace {
        models.unload(replace, false).await?;
    }
    let stats = match load.mode {
        Mode::Lazy => {
            attached.abandon_load();
            LoadStats::default()
        }
        Mode::Prefetch => carry(&attached, &span, prefetch(models, load, sink)).await?,
        Mode::Eager => {
            let (progress, watched) = watch::channel(LoadProgress::default());
            let fetching = fetch(models, &load.model, progress);
            let fetching = reporting(sink, LoadPhase::Fetch, watched, fetching);
            carry(&attached, &span, fetching).await?
        }
    };
    let total_bytes = attached.report.tensor_bytes;
    let done = LoadModelResponse {
        phase: LoadPhase::Done.into(),
        done_bytes: total_bytes,
        total_bytes,
        done: true,
        model: Some(models.view(&attached)),
        load: Some(proto_load(&stats)),
    };
    sink.send(done).await;
    Ok(())
}

/// Moves bytes. Requests that come meanwhile owe them to this load.
async fn carry(
    attached: &Attached,
    span: &Span,
    moving: impl Future<Output = Result<LoadStats, Error>>,
) -> Result<LoadStats, Error> {
    attached.begin_load(span.clone(), Until::Told);
    let under_way = UnderWay(attached);
    let stats = moving.instrument(span.clone()).await?;
    under_way.0.end_load(&stats);
    Ok(stats)
}

/// Ends the load of a model however its carrying ends, also when its caller goes away.
struct UnderWay<'a>(&'a Attached);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.end_load(&LoadStats::default());
    }
}

async fn attach(
    models: &Models,
    load: &Load,
    span: &Span,
    sink: &Sink<LoadModelResponse>,
) -> Result<Arc<Attached>, Error> {
    let (_nothing_moves, watched) = watch::channel(LoadProgress::default());
    let attaching = models.attach(&load.model, load.pin, || span.clone());
    let attached = reporting(sink, LoadPhase::Attach, watched, attaching).await?;
    if load.pin {
        // Whoever attached it before, or was quicker just now, may not have asked for a pin.
        models.engine().pin(&attached.id).await?;
    }
    models.set_keep_alive(&attached, load.keep_alive);
    Ok(attached)
}

/// From storage into the page cache, by the daemon.
async fn prefetch(
    models: &Models,
    load: &Load,
    sink: &Sink<LoadModelResponse>,
) -> Result<LoadStats, Error> {
    let (tell, watched) = watch::channel(LoadProgress::default());
    let prefetching = async {
        let mut last = None;
        let mut progress = models.daemon().prefetch(&load.model).await?;
        while let Some(word) = progress.next().await? {
            tell.send_replace(LoadProgress {
                done_bytes: word.done_bytes,
                total_bytes: word.total_bytes,
            });
            last = Some(word);
        }
        let last = last.filter(|word| word.done).ok_or(Error::Lost {
            what: "the daemon's prefetch",
        })?;
        Ok(LoadStats {
            cold_bytes: last.cold_bytes,
            warm_bytes: last.warm_bytes,
            unknown_bytes: last
                .done_bytes
                .saturating_sub(last.cold_bytes + last.warm_bytes),
            ..LoadStats::default()
        })
    };
    let prefetching = prefetching.instrument(info_span!("model.load.prefetch"));
    reporting(sink, LoadPhase::Prefetch, watched, prefetching).await
}

/// From the page cache, or from storage, onto the device.
async fn fetch(
    models: &Models,
    model: &str,
    progress: watch::Sender<LoadProgress>,
) -> Result<LoadStats, Error> {
    let fetching = models
        .engine()
        .load(model, progress)
        .instrument(info_span!("model.load.fetch"));
    Ok(fetching.await?)
}

/// Runs `work` and tells the caller ten times a second how far it is.
async fn reporting<T>(
    sink: &Sink<LoadModelResponse>,
    phase: LoadPhase,
    progress: watch::Receiver<LoadProgress>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let reports = async {
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = *progress.borrow();
            sink.send(LoadModelResponse {
                phase: phase.into(),
                done_bytes: now.done_bytes,
                total_bytes: now.total_bytes,
                ..LoadModelResponse::default()
            })
            .await;
        }
    };
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = reports => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    fn request() -> LoadModelRequest {
        LoadModelRequest {
            model: "m".to_owned(),
            ..LoadModelRequest::default()
        }
    }

    fn check(change: impl FnOnce(&mut LoadModelRequest), field: Option<&str>) {
        let mut wanted = request();
        change(&mut wanted);
        let found = match Load::try_from(wanted) {
            Ok(_) => None,
            Err(Error::Invalid { violations }) => Some(violations[0].field.clone()),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found.as_deref(), field);
    }

    #[test]
    fn fields() {
        let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        check(|_| {}, None);
        check(|r| r.model.clear(), Some("model"));
        check(|r| r.mode = 3, None);
        check(|r| r.mode = 9, Some("mode"));
        check(|r| r.replace = "m".to_owned(), Some("replace"));
        check(|r| r.replace = "n".to_owned(), None);
        check(|r| r.keep_alive = seconds(0, 1), None);
        check(|r| r.keep_alive = seconds(0, 0), Some("keep_alive"));
        check(|r| r.keep_alive = seconds(-1, 0), Some("keep_alive"));
        assert_eq!(Load::try_from(request()).unwrap().mode, Mode::Lazy);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_told_ten_times_a_second() {
        let (tell, watched) = watch::channel(LoadProgress::default());
        let mut stream = answers(Span::none(), |sink| async move {
            let work = async {
                for done_bytes in 1..=10 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    tell.send_replace(LoadProgress {
                        done_bytes,
                        total_bytes: 10,
                    });
                }
                Ok(())
            };
            reporting(&sink, LoadPhase::Fetch, watched, work).await
        });
        let mut words = Vec::new();
        while let Some(word) = stream.next().await {
            words.push(word.unwrap());
        }
        assert!(words.len() > 10, "{} in a second", words.len());
        assert!(words.is_sorted_by_key(|word| word.done_bytes));
        assert!(
            words
                .iter()
                .all(|word| word.phase() == LoadPhase::Fetch && !word.done)
        );
    }
}
