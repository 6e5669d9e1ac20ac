//! The rule of the HorizontalPodAutoscaler (autoscaling/v2) for external metrics with average values, as its controller computes it.

use serde_json::Value;

/// How far the metric may be from its target before anything happens.
const TOLERANCE: f64 = 0.1;

/// An autoscaler with its memory.
#[derive(Debug)]
pub(super) struct Hpa {
    min: u32,
    max: u32,
    pub(super) triggers: Vec<Trigger>,
    up: Behavior,
    down: Behavior,
    /// What was wished for, and when.
    wishes: Vec<(u64, u32)>,
    /// By how many pods the number was changed, and when.
    changes: Vec<(u64, i64)>,
}

/// A metric and what one pod takes of it.
#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) key: String,
    per_pod: f64,
}

#[derive(Debug)]
struct Behavior {
    window: u64,
    policies: Vec<Policy>,
}

#[derive(Debug)]
struct Policy {
    is_percent: bool,
    value: f64,
    period: u64,
}

impl Hpa {
    /// The autoscaler that KEDA makes of a ScaledObject.
    pub(super) fn of(scaled: &Value) -> Self {
        let spec = &scaled["spec"];
        let behavior = &spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"];
        let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
        Self {
            min: number(&spec["minReplicaCount"]),
            max: number(&spec["maxReplicaCount"]),
            triggers: spec["triggers"]
                .as_array()
                .unwrap()
                .iter()
                .map(Trigger::of)
                .collect(),
            up: Behavior::of(&behavior["scaleUp"]),
            down: Behavior::of(&behavior["scaleDown"]),
            wishes: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// How many pods there shall be, given how many there are and the value of each trigger's metric.
    pub(super) fn decide(&mut self, now: u64, replicas: u32, metrics: &[u64]) -> u32 {
        assert_eq!(metrics.len(), self.triggers.len());
        let wish = self
            .triggers
            .iter()
            .zip(metrics)
            .map(|(trigger, metric)| trigger.wish(*metric, replicas))
            .max()
            .unwrap();
        let stable = self.stabilized(now, replicas, wish);
        self.wishes.push((now, wish));
        let bounded = self
            .rate_limited(now, replicas, stable)
            .clamp(self.min, self.max);
        if bounded != replicas {
            self.changes
                .push((now, i64::from(bounded) - i64::from(replicas)));
        }
        bounded
    }

    /// Growing takes the least wish of its window, shrinking the greatest of its own.
    fn stabilized(&self, now: u64, replicas: u32, wish: u32) -> u32 {
        let within = |window: u64| {
            self.wishes
                .iter()
                .filter(move |(at, _)| at + window > now)
                .map(|(_, wish)| *wish)
        };
        let up = within(self.up.window).chain([wish]).min().unwrap();
        let down = within(self.down.window).chain([wish]).max().unwrap();
        replicas.max(up).min(down)
    }

    fn rate_limited(&self, now: u64, replicas: u32, wish: u32) -> u32 {
        let changed = |period: u64, sign: i64| -> i64 {
            let recent = self.changes.iter().filter(|(at, _)| at + period > now);
            recent.map(|(_, by)| (by * sign).max(0)).sum()
        };
        let limits = |behavior: &Behavior, sign: i64| -> Vec<f64> {
            let limit = |policy: &Policy| {
                let start = i64::from(replicas) - changed(policy.period, sign) * sign;
                let start = start as f64;
                let by = if policy.is_percent {
                    start * policy.value / 100.0
                } else {
                    policy.value
                };
                start + by * sign as f64
            };
            behavior.policies.iter().map(limit).collect()
        };
        if wish > replicas {
            // Never below what there is: what was added in this period stays.
            let most = limits(&self.up, 1)
                .into_iter()
                .fold(0.0, f64::max)
                .ceil()
                .max(f64::from(replicas));
            wish.min(most as u32)
        } else if wish < replicas {
            let least = limits(&self.down, -1)
                .into_iter()
                .fold(f64::MAX, f64::min)
                .floor()
                .min(f64::from(replicas))
                .max(0.0);
            wish.max(least as u32)
        } else {
            replicas
        }
    }
}

impl Trigger {
    fn of(trigger: &Value) -> Self {
        assert_eq!(trigger["metricType"], "AverageValue");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let metadata = &trigger["metadata"];
        Self {
            name: text(&trigger["name"]),
            key: text(&metadata["listName"]),
            per_pod: text(&metadata["listLength"]).parse().unwrap(),
        }
    }

    fn wish(&self, metric: u64, replicas: u32) -> u32 {
        let metric = metric as f64;
        let usage = metric / (self.per_pod * f64::from(replicas));
        if (1.0 - usage).abs() <= TOLERANCE {
            return replicas;
        }
        (metric / self.per_pod).ceil() as u32
    }
}

impl Behavior {
    fn of(behavior: &Value) -> Self {
        assert_eq!(behavior["selectPolicy"], "Max");
        let policies = behavior["policies"].as_array().unwrap().iter();
        Self {
            window: behavior["stabilizationWindowSeconds"].as_u64().unwrap(),
            policies: policies
                .map(|policy| Policy {
                    is_percent: policy["type"] == "Percent",
                    value: policy["value"].as_f64().unwrap(),
                    period: policy["periodSeconds"].as_u64().unwrap(),
                })
                .collect(),
        }
    }
}
