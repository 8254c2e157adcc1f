//! The charts, as SVG. Their colours are placeholders that the style sheet replaces, for light and dark.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::figures::compact;
use super::history::STEP;

/// The page scales it.
const SIZE: (u32, u32) = (420, 150);

/// Points of a line at most.
const COLUMNS: usize = 240;

/// Placeholders, by which the style sheet finds what is drawn in them.
const GRID: RGBColor = RGBColor(1, 1, 1);
const TEXT: RGBColor = RGBColor(2, 2, 2);
pub(super) const FIRST: RGBColor = RGBColor(3, 3, 3);
pub(super) const SECOND: RGBColor = RGBColor(4, 4, 4);
pub(super) const ALARM: RGBColor = RGBColor(5, 5, 5);

/// One line of a chart.
pub(super) struct Series {
    pub(super) colour: RGBColor,
    pub(super) is_filled: bool,
    /// One for each step of time, the newest last.
    pub(super) values: Vec<Option<f32>>,
}

/// Draws the last minutes; empty if that cannot be done.
pub(super) fn draw(lines: &[Series], minutes: usize) -> String {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    // Writing to memory cannot fail; a range without an extent can.
    let drawn = draw_on(&root, lines, minutes).and_then(|()| root.present());
    drop(root);
    if drawn.is_ok() { svg } else { String::new() }
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_on(root: &DrawingArea<SVGBackend, Shift>, lines: &[Series], minutes: usize) -> Drawn {
    let values = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let top = f64::from(values().fold(0.0_f32, f32::max));
    let top = if top > 0.0 { top * 1.1 } else { 1.0 };
    let mut chart = ChartBuilder::on(root)
        .margin_top(8)
        .margin_right(14)
        .x_label_area_size(20)
        .y_label_area_size(42)
        .build_cartesian_2d(-(minutes as f64)..0.0, 0.0..top)?;
    let text = ("sans-serif", 14).into_font().color(&TEXT);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(6)
        .y_labels(4)
        .x_label_formatter(&|minutes| match minutes.round() as i64 {
            0 => "now".into(),
            minutes => format!("{minutes} min").replace('-', "−"),
        })
        .y_label_formatter(&|value| compact(*value))
        .label_style(text)
        .draw()?;
    for line in lines {
        for run in runs(line, minutes) {
            let style = line.colour.stroke_width(2);
            if line.is_filled {
                let area = AreaSeries::new(run, 0.0, line.colour.mix(0.15)).border_style(style);
                chart.draw_series(area)?;
            } else {
                chart.draw_series(LineSeries::new(run, style))?;
            }
        }
    }
    Ok(())
}

/// The points of a line, in a run for each time without a gap. If there are more than [`COLUMNS`], each
/// point is the largest of a few.
fn runs(line: &Series, minutes: usize) -> Vec<Vec<(f64, f64)>> {
    let minutes_per_step = STEP.as_secs_f64() / 60.0;
    let steps = minutes * 60 / STEP.as_secs() as usize;
    let fold = steps.div_ceil(COLUMNS);
    let newest = &line.values[line.values.len().saturating_sub(steps)..];
    // From the end, so that the groups stay the same while the newest one fills.
    let points: Vec<_> = newest
        .rchunks(fold)
        .enumerate()
        .rev()
        .map(|(index, values)| {
            let largest = values.iter().flatten().copied().reduce(f32::max);
            let minutes = -((index * fold) as f64) * minutes_per_step;
            largest.map(|value| (minutes, f64::from(value)))
        })
        .collect();
    let runs = points.split(Option::is_none).filter(|run| !run.is_empty());
    let runs = runs.map(|run| run.iter().copied().flatten().collect());
    // A line of one point is invisible.
    let width = fold as f64 * minutes_per_step;
    runs.map(|run: Vec<_>| match run[..] {
        [(minutes, value)] => vec![(minutes - width, value), (minutes, value)],
        _ => run,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_gaps_and_at_most_so_many_points() {
        let values = (0..720).map(|n| Some(n as f32).filter(|_| !(300..=400).contains(&n)));
        let values = values.collect();
        let line = Series { colour: FIRST, is_filled: true, values };
        let runs = runs(&line, 60);
        assert_eq!(runs.len(), 2);
        assert!(runs.iter().map(Vec::len).sum::<usize>() <= COLUMNS);
        assert_eq!(runs[1].last(), Some(&(0.0, 719.0)));
        let svg = draw(&[line], 60);
        assert!(svg.starts_with("<svg") && svg.contains("\nnow\n"), "{svg}");
        assert!(svg.contains("stroke=\"#030303\""), "{svg}");
    }

    #[test]
    fn nothing_can_be_drawn_of_nothing_but_the_axes() {
        for values in [vec![], vec![None], vec![Some(0.0)], vec![Some(f32::MAX)]] {
            let line = Series { colour: FIRST, is_filled: false, values };
            assert!(draw(&[line], 5).starts_with("<svg"));
        }
    }
}
