//! Samples, their medians and ratios, and the tables they are printed as.

/// What was measured of one thing and of its reference, a pair a round.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// What is measured, each round.
    pub samples: Vec<f64>,
    /// The reference: what it is, and its samples in the same order.
    pub reference: Option<(&'static str, Vec<f64>)>,
    /// How a sample is spelt.
    pub unit: Unit,
    /// What is to be reached.
    pub goal: Option<Goal>,
}

/// How a sample is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Time,
    /// Bytes.
    Size,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// By the median of the ratios.
    Ratio(f64),
    /// By the median of the samples.
    Value(f64),
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its heading.
    pub title: String,
    /// The columns' heads.
    pub head: Vec<String>,
    /// The rows, as long as the head.
    pub rows: Vec<Vec<String>>,
}

/// The middle one; the lower one of two.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn bounds(samples: &[f64]) -> (f64, f64) {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    (least, samples.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

impl Unit {
    /// Three digits and a unit.
    pub fn spell(self, value: f64) -> String {
        let steps: &[(f64, &str)] = match self {
            Unit::Time => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
            Unit::Size => &[(1073741824.0, "GiB"), (1048576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")],
        };
        let last = steps[steps.len() - 1];
        let (by, word) = steps.iter().find(|(by, _)| value.abs() >= *by).copied().unwrap_or(last);
        format!("{} {word}", digits(value / by))
    }
}

fn digits(value: f64) -> String {
    match value.abs() {
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl Figure {
    /// The ratios, round by round.
    pub fn ratios(&self) -> Vec<f64> {
        let Some((_, reference)) = &self.reference else { return Vec::new() };
        self.samples.iter().zip(reference).map(|(a, b)| a / b).collect()
    }

    fn row(&self) -> Vec<String> {
        let value = median(&self.samples);
        let (least, most) = bounds(&self.samples);
        let ratios = self.ratios();
        let (reference, ratio) = match &self.reference {
            None => (String::new(), String::new()),
            Some((name, samples)) => {
                let (least, most) = bounds(&ratios);
                (
                    format!("{} {name}", self.unit.spell(median(samples))),
                    format!("{} ({}–{})", digits(median(&ratios)), digits(least), digits(most)),
                )
            }
        };
        let verdict = |reached| if reached { "reached" } else { "missed" };
        let goal = match self.goal {
            None => String::new(),
            Some(Goal::Ratio(goal)) => format!("{goal}: {}", verdict(median(&ratios) <= goal)),
            Some(Goal::Value(goal)) => format!("{}: {}", self.unit.spell(goal), verdict(value <= goal)),
        };
        let span =
            format!("{} ({}–{})", self.unit.spell(value), self.unit.spell(least), self.unit.spell(most));
        vec![
            self.name.clone(),
            if least == most { self.unit.spell(value) } else { span },
            reference,
            ratio,
            goal,
        ]
    }
}

impl Table {
    /// A table of figures.
    pub fn of(title: &str, figures: &[Figure]) -> Table {
        let head = ["", "median (least–most)", "reference", "ratio (least–most)", "goal"];
        Table {
            title: title.into(),
            head: head.map(String::from).to_vec(),
            rows: figures.iter().map(Figure::row).collect(),
        }
    }

    fn print(&self, markdown: bool) -> String {
        let all: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            if markdown {
                format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
            } else {
                format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
            }
        };
        let mut text = if markdown { format!("### {}\n\n", self.title) } else { format!("{}\n", self.title) };
        text.push_str(&line(&self.head));
        if markdown {
            text.push_str(&line(&widths.iter().map(|width| "-".repeat(*width)).collect()));
        }
        self.rows.iter().for_each(|row| text.push_str(&line(row)));
        text
    }
}

/// All of it.
pub fn print(tables: &[Table], notes: &[String], markdown: bool) -> String {
    let mut parts: Vec<String> = notes.iter().map(|note| format!("{note}\n")).collect();
    parts.extend(tables.iter().map(|table| table.print(markdown)));
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spelling() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(&[]).is_nan());
        assert_eq!(Unit::Time.spell(1_234_567.0), "1.23 ms");
        assert_eq!(Unit::Time.spell(0.25), "0.25 ns");
        assert_eq!(Unit::Size.spell(307_200.0), "300 KiB");
    }

    #[test]
    fn a_ratio_is_of_one_round() {
        let figure = Figure {
            name: "it".into(),
            samples: vec![10.0, 200.0],
            reference: Some(("that", vec![10.0, 100.0])),
            unit: Unit::Time,
            goal: Some(Goal::Ratio(1.3)),
        };
        assert_eq!(figure.ratios(), [1.0, 2.0]);
        let text = print(&[Table::of("t", std::slice::from_ref(&figure))], &[], true);
        assert!(text.contains("1.00 (1.00–2.00)") && text.contains("1.3: reached"), "{text}");
        let missed = Figure { goal: Some(Goal::Value(9.0)), ..figure };
        assert!(print(&[Table::of("t", &[missed])], &[], false).contains("9.00 ns: missed"));
    }
}
