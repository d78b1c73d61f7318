//! Figures as a table, or as JSON.

use dinp_common::testing::Figure;
use std::collections::BTreeMap;

/// What is measured, and what the ratio of the router's to a peer's is to be at most.
#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) targets: &'static [(&'static str, f64)],
}

/// The values of each round, by column.
type Values = BTreeMap<&'static str, Vec<f64>>;

struct Row {
    case: String,
    metric: Metric,
    values: Values,
}

/// The figures of one section.
pub(crate) struct Figures {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Figures {
    pub(crate) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn add(&mut self, case: &str, metric: Metric, column: &'static str, value: f64) {
        let at = self.rows.iter().position(|row| row.case == case && row.metric.name == metric.name);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row { case: case.to_owned(), metric, values: Values::new() });
            self.rows.len() - 1
        });
        self.rows[at].values.entry(column).or_default().push(value);
    }

    /// A sentence for people, below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// All values of a metric, by column, case by case.
    pub(crate) fn of(&self, metric: Metric) -> impl Iterator<Item = &Values> {
        self.rows.iter().filter(move |row| row.metric.name == metric.name).map(|row| &row.values)
    }

    pub(crate) fn print(&self) {
        let names: Vec<String> = self.rows.iter().map(Row::name).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0).max(30);
        println!("{:<width$} {} (ratio of {} to it)", "", self.title, self.columns[0]);
        print!("{:<width$}", "");
        self.columns.iter().for_each(|column| print!(" {column:>19}"));
        println!();
        for (name, Row { values, .. }) in names.iter().zip(&self.rows) {
            print!("{name:<width$}");
            for column in &self.columns {
                print!(" {:>19}", shown(values.get(self.columns[0]), values.get(column)));
            }
            println!();
        }
        self.notes.iter().for_each(|note| println!("{note}"));
        println!();
    }

    /// The same for machines: the first column beside each other one.
    pub(crate) fn figures(&self) -> impl Iterator<Item = Figure> {
        let (first, others) = self.columns.split_first().expect("figures have columns");
        self.rows.iter().flat_map(move |Row { case, metric, values }| {
            let ours = values.get(first);
            others.iter().filter_map(move |peer| {
                let (ours, theirs) = (ours?, values.get(peer)?);
                let target = metric.targets.iter().find_map(|(of, most)| (of == peer).then_some(*most));
                let figure = Figure::alone(case, metric.name, metric.unit, median(ours), None);
                Some(figure.beside(peer, median(theirs), ratio(ours, theirs), target))
            })
        })
    }
}

impl Row {
    fn name(&self) -> String {
        let Self { case, metric: Metric { name, unit, .. }, .. } = self;
        format!("{case}, {name}, {unit}")
    }
}

/// Median of the rounds, with the ratio of the first column to it.
fn shown(first: Option<&Vec<f64>>, values: Option<&Vec<f64>>) -> String {
    let Some(values) = values else { return "-".to_owned() };
    let ratio = first.map(|first| ratio(first, values)).filter(|ratio| ratio.is_finite());
    let ratio = ratio.map_or_else(|| format!("{:>6}", "-"), |ratio| format!("{ratio:>6.2}"));
    format!("{:>8.1} ({ratio})", median(values))
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this share of them does not exceed.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// The median of the ratios of each round.
fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}
