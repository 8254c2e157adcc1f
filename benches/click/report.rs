//! The lines of the table: each figure with its goal.

use serde_json::json;

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

/// All measured lines.
pub struct Report {
    only: String,
    lines: Vec<Line>,
}

impl Report {
    /// A report of the lines whose name contains this.
    pub fn new(only: &str) -> Report {
        println!(
            "{:<34}{:>9}{:>9}{:>9}  {:<16}{:>7}{:>7}",
            "", "min", "median", "max", "unit", "must", "aim"
        );
        Report { only: only.to_owned(), lines: Vec::new() }
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
        format!("{:#}", serde_json::Value::Array(lines.collect()))
    }
}

impl Line {
    fn summary(&self) -> [f64; 3] {
        let last = self.values.len() - 1;
        [self.values[0], self.values[last / 2], self.values[last]]
    }
}
