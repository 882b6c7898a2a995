//! Figures of functions, in the text format that Prometheus reads.

use std::{
    collections::VecDeque,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use wasm_exec::http::Served;

/// Upper bounds of the histograms' buckets, in seconds.
pub(super) const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What happened to one function.
#[derive(Default)]
pub(super) struct FunctionFigures {
    /// By the first digit of the status; 0: none was sent.
    statuses: [AtomicU64; 6],
    durations: Histogram,
    starts: Histogram,
    thaws: AtomicU64,
    failed_starts: AtomicU64,
    refused: AtomicU64,
    died: AtomicU64,
    last_error: Mutex<Option<String>>,
    history: Mutex<History>,
}

/// Seconds of a history.
const SECONDS: usize = 60;

/// What happened in each of the last seconds.
#[derive(Debug, Default)]
struct History {
    /// When the last of them ended, and what had happened by then.
    last: Option<(Instant, Second)>,
    seconds: VecDeque<Second>,
}

/// What happened in one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Second {
    requests: u64,
    starts: u64,
    thaws: u64,
}

impl History {
    /// `total`: what has happened so far.
    fn look(&mut self, now: Instant, total: Second) {
        let (ended, before) = *self.last.get_or_insert((now, Second::default()));
        let since = now.duration_since(ended).as_secs();
        if since == 0 {
            return;
        }
        // Of a time in which nobody looked, it is not known when.
        let unseen = usize::try_from(since - 1).unwrap_or(SECONDS).min(SECONDS);
        self.seconds.extend(std::iter::repeat_n(Second::default(), unseen));
        self.seconds.push_back(Second {
            requests: total.requests.saturating_sub(before.requests),
            starts: total.starts.saturating_sub(before.starts),
            thaws: total.thaws.saturating_sub(before.thaws),
        });
        self.seconds.drain(..self.seconds.len().saturating_sub(SECONDS));
        self.last = Some((ended + Duration::from_secs(since), total));
    }
}

/// How a function is now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) running: usize,
    pub(super) frozen: usize,
    pub(super) starting: usize,
    pub(super) in_flight: u64,
    pub(super) waiting: usize,
    /// What it has come to within this process, if it is there.
    pub(super) guests: Option<Served>,
}

/// How often something took how long.
#[derive(Default)]
pub(super) struct Histogram {
    /// Each alone; the last one has what is above all bounds.
    counts: [AtomicU64; BUCKETS.len() + 1],
    total_micros: AtomicU64,
}

impl Histogram {
    pub(super) fn note(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.total_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn write(&self, text: &mut String, name: &str, labels: &str) {
        let mut sum = 0;
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (count, bound) in self.counts.iter().zip(bounds) {
            sum += count.load(Relaxed);
            _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}");
        }
        let seconds = self.total_micros.load(Relaxed) as f64 / 1e6;
        _ = writeln!(text, "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {sum}");
    }
}

impl FunctionFigures {
    pub(super) fn note_request(&self, status: u16, taken: Duration, error: Option<&str>) {
        let class = usize::from(status / 100).min(self.statuses.len() - 1);
        self.statuses[class].fetch_add(1, Relaxed);
        self.durations.note(taken);
        if let Some(error) = error {
            self.note_error(error);
        }
    }

    pub(super) fn note_error(&self, error: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_owned());
    }

    pub(super) fn note_start(&self, taken: Duration) {
        self.starts.note(taken);
    }

    pub(super) fn note_failed_start(&self, error: &str) {
        self.failed_starts.fetch_add(1, Relaxed);
        self.note_error(error);
    }

    pub(super) fn note_thaw(&self) {
        self.thaws.fetch_add(1, Relaxed);
    }

    pub(super) fn note_refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn note_death(&self, error: &str) {
        self.died.fetch_add(1, Relaxed);
        self.note_error(error);
    }

    /// Called several times a second.
    pub(super) fn look(&self) {
        let total = Second { requests: self.requests(), starts: self.starts(), thaws: self.thaws() };
        self.history.lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now(), total);
    }

    /// The last minute, second by second; the last one is over.
    pub(super) fn history(&self) -> Vec<Second> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).seconds.iter().copied().collect()
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn requests(&self) -> u64 {
        self.statuses.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(super) fn failed(&self) -> u64 {
        self.statuses[0].load(Relaxed) + self.statuses[5].load(Relaxed)
    }

    pub(super) fn starts(&self) -> u64 {
        self.starts.count()
    }

    pub(super) fn thaws(&self) -> u64 {
        self.thaws.load(Relaxed)
    }

    /// Requests by how long they took: of each bucket alone.
    pub(super) fn durations(&self) -> Vec<u64> {
        self.durations.counts.iter().map(|count| count.load(Relaxed)).collect()
    }
}

/// All of it. `lost`: lines of the access log that nobody wrote, and spans that no collector took.
pub(super) fn prometheus(functions: &[(String, &FunctionFigures, Now)], lost: [u64; 2]) -> String {
    let mut text = String::new();
    family(&mut text, "amphora_requests_total", "counter", "Requests that are over, by the class of their status.");
    for (labels, figures, _) in functions {
        for (class, count) in figures.statuses.iter().enumerate() {
            let class = if class == 0 { "none".to_owned() } else { format!("{class}xx") };
            _ = writeln!(text, "amphora_requests_total{{{labels},status=\"{class}\"}} {}", count.load(Relaxed));
        }
    }
    type Value = fn(&FunctionFigures, &Now) -> u64;
    let families: [(&str, &str, &str, Value); 9] = [
        ("amphora_refused_requests_total", "counter", "Requests that waited in vain, or could not.", |f, _| {
            f.refused.load(Relaxed)
        }),
        ("amphora_thaws_total", "counter", "Frozen containers that were let go on.", |f, _| f.thaws.load(Relaxed)),
        ("amphora_failed_starts_total", "counter", "Containers that did not come to listen.", |f, _| {
            f.failed_starts.load(Relaxed)
        }),
        ("amphora_died_containers_total", "counter", "Containers that ended by themselves.", |f, _| {
            f.died.load(Relaxed)
        }),
        ("amphora_requests_in_flight", "gauge", "Requests that are being answered.", |_, now| now.in_flight),
        ("amphora_requests_waiting", "gauge", "Requests that wait for a container.", |_, now| now.waiting as u64),
        ("amphora_containers_running", "gauge", "Containers that listen.", |_, now| now.running as u64),
        ("amphora_containers_frozen", "gauge", "Containers that stand still.", |_, now| now.frozen as u64),
        ("amphora_containers_starting", "gauge", "Containers that do not listen yet.", |_, now| now.starting as u64),
    ];
    for (name, kind, help, value) in families {
        family(&mut text, name, kind, help);
        for (labels, figures, now) in functions {
            _ = writeln!(text, "{name}{{{labels}}} {}", value(figures, now));
        }
    }
    type OfGuests = fn(&Served) -> String;
    let families: [(&str, &str, &str, OfGuests); 6] = [
        (
            "amphora_guest_memory_bytes",
            "gauge",
            "What instances within the gateway have in memories and tables.",
            |s| s.memory_bytes.to_string(),
        ),
        ("amphora_guest_memory_peak_bytes", "gauge", "Most that they had at once.", |s| {
            s.peak_memory_bytes.to_string()
        }),
        (
            "amphora_traps_total",
            "counter",
            "Requests whose instances within the gateway did not end by themselves.",
            |s| s.traps.to_string(),
        ),
        (
            "amphora_fuel_total",
            "counter",
            "Instructions of instances within the gateway, where they are counted.",
            |s| s.fuel_used.to_string(),
        ),
        ("amphora_instances_total", "counter", "Instances that were made within the gateway.", |s| {
            s.instances.to_string()
        }),
        ("amphora_instantiation_seconds_total", "counter", "How long that took, in all.", |s| {
            s.instantiation.as_secs_f64().to_string()
        }),
    ];
    for (name, kind, help, value) in families {
        family(&mut text, name, kind, help);
        for (labels, guests) in functions.iter().filter_map(|(labels, _, now)| Some((labels, now.guests.as_ref()?))) {
            _ = writeln!(text, "{name}{{{labels}}} {}", value(guests));
        }
    }
    type Times = fn(&FunctionFigures) -> &Histogram;
    let histograms: [(&str, &str, Times); 2] = [
        ("amphora_request_duration_seconds", "From a request's head to the end of its answer.", |f| &f.durations),
        ("amphora_container_start_seconds", "From the wish for a container until it listens.", |f| &f.starts),
    ];
    for (name, help, times) in histograms {
        family(&mut text, name, "histogram", help);
        functions.iter().for_each(|(labels, figures, _)| times(figures).write(&mut text, name, labels));
    }
    let [lines, spans] = lost;
    family(&mut text, "amphora_access_log_lost_lines_total", "counter", "Lines of the access log that nobody wrote.");
    _ = writeln!(text, "amphora_access_log_lost_lines_total {lines}");
    family(&mut text, "amphora_traces_lost_spans_total", "counter", "Spans that no collector took.");
    _ = writeln!(text, "amphora_traces_lost_spans_total {spans}");
    text
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_has_each_second_of_the_last_minute() {
        let mut history = History::default();
        let begin = Instant::now();
        let look = |history: &mut History, millis, requests| {
            history.look(begin + Duration::from_millis(millis), Second { requests, ..Second::default() });
        };
        for (millis, requests) in [(0, 0), (500, 3), (1000, 5), (1700, 6), (2100, 9)] {
            look(&mut history, millis, requests);
        }
        let requests = |history: &History| history.seconds.iter().map(|second| second.requests).collect::<Vec<_>>();
        assert_eq!(requests(&history), [5, 4]);
        look(&mut history, 5200, 11);
        assert_eq!(requests(&history), [5, 4, 0, 0, 2]);
        look(&mut history, 3_600_000, 20);
        assert_eq!((requests(&history).len(), requests(&history).last()), (SECONDS, Some(&9)));
    }

    #[test]
    fn buckets_add_up() {
        let figures = FunctionFigures::default();
        figures.note_request(200, Duration::from_micros(700), None);
        figures.note_request(200, Duration::from_millis(30), None);
        figures.note_request(502, Duration::from_secs(60), Some("it broke"));
        let now = Now { running: 2, in_flight: 7, ..Now::default() };
        let text = prometheus(&[("function=\"web\"".to_owned(), &figures, now)], [3, 0]);
        for line in [
            "amphora_requests_total{function=\"web\",status=\"2xx\"} 2",
            "amphora_requests_total{function=\"web\",status=\"5xx\"} 1",
            "amphora_requests_total{function=\"web\",status=\"none\"} 0",
            "amphora_request_duration_seconds_bucket{function=\"web\",le=\"0.0005\"} 0",
            "amphora_request_duration_seconds_bucket{function=\"web\",le=\"0.001\"} 1",
            "amphora_request_duration_seconds_bucket{function=\"web\",le=\"0.05\"} 2",
            "amphora_request_duration_seconds_bucket{function=\"web\",le=\"10\"} 2",
            "amphora_request_duration_seconds_bucket{function=\"web\",le=\"+Inf\"} 3",
            "amphora_request_duration_seconds_count{function=\"web\"} 3",
            "amphora_requests_in_flight{function=\"web\"} 7",
            "amphora_containers_running{function=\"web\"} 2",
            "amphora_access_log_lost_lines_total 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!((figures.requests(), figures.failed(), figures.last_error().as_deref()), (3, 1, Some("it broke")));
    }
}
