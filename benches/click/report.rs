//! The lines of the table: each figure with its goal.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use crate::Cost;

/// The goal of a figure.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost {
        must: f64,
        aim: f64,
    },
    AtLeast {
        must: f64,
        aim: f64,
    },
    /// No goal.
    None,
}

impl Goal {
    fn numbers(self) -> (Option<f64>, Option<f64>) {
        match self {
            Goal::AtMost { must, aim } | Goal::AtLeast { must, aim } => (Some(must), Some(aim)),
            Goal::None => (None, None),
        }
    }

    fn verdict(self, median: f64) -> &'static str {
        let (reaches_must, reaches_aim) = match self {
            Goal::AtMost { must, aim } => (median <= must, median <= aim),
            Goal::AtLeast { must, aim } => (median >= must, median >= aim),
            Goal::None => return "",
        };
        match (reaches_must, reaches_aim) {
            (_, true) => "aim",
            (true, false) => "must",
            (false, false) => "MISSED",
        }
    }
}

struct Line {
    name: &'static str,
    unit: &'static str,
    goal: Goal,
    values: Vec<f64>,
}

/// The head of the table of loads, in Markdown. CPU is in microseconds for a click, of the program, of the broker, and
/// both; bytes are a click's on the broker's disk.
const TRAFFIC_HEAD: &str = "\
| load                         | program      | clicks/s |   own us |broker us |                 sum us |  x floor |   p50 ms |   p99 ms |    bytes |
| ---------------------------- | ------------ | -------- | -------- | -------- | ---------------------- | -------- | -------- | -------- | -------- |";

/// What one program took under one load, each figure in each round.
struct Traffic {
    load: &'static str,
    program: String,
    figures: [(&'static str, Vec<f64>); 8],
}

/// All measured lines.
pub struct Report {
    only: String,
    traffics: Vec<Traffic>,
    lines: Vec<Line>,
}

impl Report {
    /// A report of the lines whose name contains this.
    pub fn new(only: &str) -> Report {
        Report { only: only.to_owned(), traffics: Vec::new(), lines: Vec::new() }
    }

    /// Whether any of these lines is wanted.
    pub fn wants(&self, names: &[&str]) -> bool {
        names.iter().any(|name| name.contains(&self.only))
    }

    /// Adds a line and prints it.
    pub fn line(
        &mut self,
        name: &'static str,
        unit: &'static str,
        goal: Goal,
        mut values: Vec<f64>,
    ) {
        if self.lines.is_empty() {
            println!(
                "{:<34}{:>9}{:>9}{:>9}  {:<16}{:>7}{:>7}",
                "", "min", "median", "max", "unit", "must", "aim"
            );
        }
        values.sort_by(f64::total_cmp);
        let line = Line { name, unit, goal, values };
        let [min, median, max] = line.summary().map(|value| format!("{value:.2}"));
        let (must, aim) = goal.numbers();
        let [must, aim] =
            [must, aim].map(|goal| goal.map_or(String::new(), |goal| goal.to_string()));
        let verdict = goal.verdict(line.summary()[1]);
        println!("{name:<34}{min:>9}{median:>9}{max:>9}  {unit:<16}{must:>7}{aim:>7}  {verdict}");
        self.lines.push(line);
    }

    /// Adds and prints what one program took under a load: medians, and the least and the most of the sum.
    pub fn traffic(&mut self, load: &'static str, program: &str, costs: &[Cost], floor: &[Cost]) {
        if self.traffics.is_empty() {
            println!("{TRAFFIC_HEAD}");
        }
        let values = |figure: fn(&Cost) -> f64| costs.iter().map(figure).collect::<Vec<_>>();
        let x_floor = costs.iter().zip(floor).map(|(cost, floor)| cost.sum_us() / floor.sum_us());
        let figures = Traffic {
            load,
            program: program.to_owned(),
            figures: [
                ("clicks_per_second", values(|cost| cost.clicks_per_second)),
                ("own_us", values(|cost| cost.cpu_us)),
                ("broker_us", values(|cost| cost.broker_cpu_us)),
                ("sum_us", values(Cost::sum_us)),
                ("x_floor", x_floor.collect()),
                ("p50_ms", values(|cost| cost.p50_ms)),
                ("p99_ms", values(|cost| cost.p99_ms)),
                ("bytes_on_disk", values(|cost| cost.bytes)),
            ],
        };
        println!("{figures}");
        self.traffics.push(figures);
    }

    /// The report as JSON, with every single value.
    pub fn json(&self) -> String {
        let lines = self.lines.iter().map(|line| {
            let [min, median, max] = line.summary();
            let (must, aim) = line.goal.numbers();
            json!({
                "name": line.name, "unit": line.unit, "min": min, "median": median, "max": max,
                "must": must, "aim": aim, "verdict": line.goal.verdict(median), "values": line.values,
            })
        });
        let traffics = self.traffics.iter().map(|traffic| {
            let figures = traffic.figures.iter().map(|(name, values)| (*name, values));
            let figures: BTreeMap<_, _> = figures.collect();
            json!({ "load": traffic.load, "program": traffic.program, "figures": figures })
        });
        format!("{:#}", serde_json::Value::Array(traffics.chain(lines).collect()))
    }
}

impl Line {
    fn summary(&self) -> [f64; 3] {
        summary(&self.values)
    }
}

/// The least, the median and the most of sorted values.
fn summary(sorted: &[f64]) -> [f64; 3] {
    let last = sorted.len() - 1;
    let median = f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]);
    [sorted[0], median, sorted[last]]
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {:<28} | {:<12} |", self.load, self.program)?;
        for (name, values) in &self.figures {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let [min, median, max] = summary(&sorted);
            match *name {
                "sum_us" => write!(f, "{:>23} |", format!("{median:.1} ({min:.1} to {max:.1})"))?,
                "clicks_per_second" | "bytes_on_disk" => write!(f, "{median:>9.0} |")?,
                "p50_ms" | "p99_ms" => write!(f, "{median:>9.2} |")?,
                _ => write!(f, "{median:>9.1} |")?,
            }
        }
        Ok(())
    }
}
