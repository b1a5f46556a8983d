//! Columns of text.

use crate::output::Style;

/// A table with a heading: text columns to the left, amounts to the right, two spaces between.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// One column: its heading and on which side its cells line up.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    /// Text.
    Left(&'static str),
    /// An amount.
    Right(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Table {
        Table {
            columns: columns.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: one cell per column.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.columns.len(), "a cell for every column");
        self.rows.push(cells);
    }

    /// Whether nothing but the heading would be shown.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table, the heading first.
    pub(crate) fn lines(&self, style: Style) -> Vec<String> {
        let widths = self.widths();
        let headings: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.heading().to_owned())
            .collect();
        let heading = style.bold(&self.render(&headings, &widths));
        let rows = self.rows.iter().map(|row| self.render(row, &widths));
        std::iter::once(heading).chain(rows).collect()
    }

    fn widths(&self) -> Vec<usize> {
        let width_of = |index: usize, column: &Column| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells
                .chain([column.heading().chars().count()])
                .max()
                .unwrap_or(0)
        };
        self.columns
            .iter()
            .enumerate()
            .map(|(index, column)| width_of(index, column))
            .collect()
    }

    fn render(&self, cells: &[String], widths: &[usize]) -> String {
        let padded =
            cells.iter().zip(&self.columns).zip(widths).map(
                |((cell, column), &width)| match column {
                    Column::Left(_) => format!("{cell:<width$}"),
                    Column::Right(_) => format!("{cell:>width$}"),
                },
            );
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_line_up() {
        let mut table = Table::new([
            Column::Left("MODEL"),
            Column::Right("SIZE"),
            Column::Left("NOTE"),
        ]);
        table.row(["a".to_owned(), "5.2 MiB".to_owned(), String::new()]);
        table.row(["größer".to_owned(), "1 B".to_owned(), "pinned".to_owned()]);
        assert_eq!(
            table.lines(Style::PLAIN),
            [
                "MODEL      SIZE  NOTE",
                "a       5.2 MiB",
                "größer      1 B  pinned"
            ]
        );
    }

    #[test]
    #[should_panic(expected = "a cell for every column")]
    fn short_rows_are_a_mistake() {
        Table::new([Column::Left("A"), Column::Left("B")]).row(["x".to_owned()]);
    }
}
