//! Figures as a table, or as JSON.

use std::collections::BTreeMap;

type Row = BTreeMap<&'static str, Vec<f64>>;

/// The figures of one section: a value of each round, by row and column.
pub(crate) struct Figures {
    unit: String,
    columns: Vec<&'static str>,
    rows: Vec<(String, Row)>,
    notes: Vec<String>,
}

impl Figures {
    pub(crate) fn new(unit: &str, columns: &[&'static str]) -> Self {
        Self { unit: unit.to_owned(), columns: columns.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: &str, column: &'static str, value: f64) {
        let at = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), Row::new()));
            self.rows.len() - 1
        });
        self.rows[at].1.entry(column).or_default().push(value);
    }

    /// A sentence for people, below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// All values of a row, by column.
    pub(crate) fn row(&self, row: &str) -> Option<&Row> {
        self.rows.iter().find_map(|(name, values)| (name == row).then_some(values))
    }

    pub(crate) fn print(&self) {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(30);
        println!("{:<width$} {} (ratio of {} to it)", "", self.unit, self.columns[0]);
        print!("{:<width$}", "");
        self.columns.iter().for_each(|column| print!(" {column:>19}"));
        println!();
        for (name, by_column) in &self.rows {
            print!("{name:<width$}");
            for column in &self.columns {
                print!(" {:>19}", shown(by_column.get(self.columns[0]), by_column.get(column)));
            }
            println!();
        }
        self.notes.iter().for_each(|note| println!("{note}"));
        println!();
    }
}

/// Median of the rounds, with the ratio of the first column to it.
fn shown(first: Option<&Vec<f64>>, values: Option<&Vec<f64>>) -> String {
    let Some(values) = values else { return "-".to_owned() };
    let ratio = first.map(|first| ratio(first, values)).filter(|ratio| ratio.is_finite());
    let ratio = ratio.map_or_else(|| format!("{:>6}", "-"), |ratio| format!("{ratio:>6.2}"));
    format!("{:>8.1} ({ratio})", median(values))
}

/// Every value of every section, by row and column; rows of different sections have different names.
pub(crate) fn as_json(sections: &[Figures]) -> String {
    let rows: BTreeMap<_, _> =
        sections.iter().flat_map(|section| &section.rows).map(|(name, values)| (name, values)).collect();
    serde_json::to_string(&rows).unwrap()
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
