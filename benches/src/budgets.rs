//! What starts must reach, as ratios to others in the same benchmark: met or missed.

use crate::{contenders::Family, measure::Measured};

/// How long one contender's start may take, as a share of another's of its family.
struct Budget {
    family: Family,
    own: &'static str,
    base: &'static str,
    share: f64,
}

const BUDGETS: [Budget; 5] = [
    Budget { family: Family::Linux, own: "amphora run", base: "floor", share: 2.0 },
    Budget { family: Family::Linux, own: "amphora run", base: "crun run", share: 0.333 },
    Budget { family: Family::Linux, own: "amphora run", base: "runc run", share: 0.125 },
    Budget { family: Family::Wasm, own: "amphora run", base: "wasmtime run --allow-precompiled", share: 0.4 },
    Budget { family: Family::WasmFirstRun, own: "amphora run", base: "wasmtime run -C cache=n", share: 1.0 },
];

/// One row for each budget: what it is about, the share that it allows and the one that was measured, the verdict.
pub(crate) fn rows(measured: &[Measured]) -> Vec<[String; 4]> {
    let median = |family: Family, name: &str| {
        let one = measured.iter().find(|measured| measured.family == family && measured.name == name);
        one.map(|measured| measured.wall_ms(0.5))
    };
    let row = |budget: &Budget| {
        let (own, base) = (median(budget.family, budget.own), median(budget.family, budget.base));
        let [reached, verdict] = verdict(own.zip(base).map(|(own, base)| own / base), budget.share);
        let kind = match budget.family {
            Family::Linux => "Linux",
            Family::Wasm => "Wasm, compiled before",
            Family::WasmFirstRun => "Wasm, nothing compiled yet",
        };
        [format!("{kind}: {} ÷ {}", budget.own, budget.base), format!("{:.3}", budget.share), reached, verdict]
    };
    BUDGETS.iter().map(row).collect()
}

fn verdict(reached: Option<f64>, allowed: f64) -> [String; 2] {
    match reached {
        Some(reached) if reached <= allowed => [format!("{reached:.2}"), "met".to_owned()],
        Some(reached) => [format!("{reached:.2}"), "**missed**".to_owned()],
        None => [String::new(), "not measured".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn what_is_missed_is_said_as_plainly_as_what_is_met() {
        assert_eq!(verdict(Some(1.53), 2.0), ["1.53", "met"]);
        assert_eq!(verdict(Some(0.5), 0.333), ["0.50", "**missed**"]);
        assert_eq!(verdict(None, 0.4), ["", "not measured"]);
    }
}
