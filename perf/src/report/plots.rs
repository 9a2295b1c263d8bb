//! Plots as SVG, made of the report alone.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::Distribution;
use crate::claim::{Curve, Line};
use crate::measure::duration;

const SIZE: (u32, u32) = (760, 380);
const TEXT: (&str, u32) = ("sans-serif", 14);
/// One colour for each line, told apart by people who do not see red from green, too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// What is on an axis.
struct Axis<'a> {
    name: &'a str,
    label: &'a dyn Fn(&f64) -> String,
    /// How many places have a label.
    labels: usize,
}

/// Times over the part of the samples that took no longer. Both axes are logarithmic, the one towards the tail.
pub fn distributions(of: &[Distribution]) -> Option<String> {
    let lines: Vec<Line> = of
        .iter()
        .map(|distribution| {
            let quantiles = &distribution.quantiles;
            let points = quantiles.points.iter();
            Line {
                label: quantiles.label.clone(),
                points: points
                    .map(|(part, time)| (-(1.0 - part).log10(), *time))
                    .collect(),
            }
        })
        .collect();
    let part = |nines: &f64| match 100.0 * (1.0 - 10f64.powf(-nines)) {
        most if most < 90.0 => format!("{most:.0}%"),
        tail => format!("{}%", (tail * 100.0).round() / 100.0),
    };
    plot(
        &lines,
        Axis {
            name: "part of the samples",
            label: &part,
            labels: 7,
        },
        Axis {
            name: "time at most",
            label: &|microseconds| duration(microseconds * 1e3),
            labels: 8,
        },
    )
}

/// A curve over powers of two.
pub fn curve(curve: &Curve) -> Option<String> {
    let lines: Vec<Line> = curve
        .lines
        .iter()
        .map(|line| Line {
            label: line.label.clone(),
            points: line.points.iter().map(|(x, y)| (x.log2(), *y)).collect(),
        })
        .collect();
    // Halves and quarters of a power are no number of anything.
    let power = |exponent: &f64| match exponent.fract() {
        0.0 => exponent.exp2().to_string(),
        _ => String::new(),
    };
    plot(
        &lines,
        Axis {
            name: &curve.over,
            label: &power,
            labels: 8,
        },
        Axis {
            name: &curve.shown,
            label: &plain,
            labels: 8,
        },
    )
}

fn plain(value: &f64) -> String {
    match value.abs() {
        large if large >= 1e6 => format!("{}M", (value / 1e4).round() / 100.0),
        large if large >= 1e4 => format!("{}k", (value / 1e2).round() / 10.0),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

/// `None` if there is nothing to be seen, or nothing that can be drawn.
fn plot(lines: &[Line], over: Axis<'_>, shown: Axis<'_>) -> Option<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&area, lines, &over, &shown)?;
        area.present().ok()?;
    }
    Some(text)
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    lines: &[Line],
    over: &Axis<'_>,
    shown: &Axis<'_>,
) -> Option<()> {
    /// Within one such factor a logarithmic axis has no labels to speak of.
    const DECADE: f64 = 10.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let (left, right) = range(points().map(|(x, _)| *x))?;
    let (low, high) = range(points().map(|(_, y)| *y).filter(|y| *y > 0.0))?;
    let values = low * 0.8..high * 1.25;
    let mut chart = ChartBuilder::on(area);
    chart.margin(12).x_label_area_size(46).y_label_area_size(84);
    if high / low < DECADE {
        let chart = chart.build_cartesian_2d(left..right, values);
        fill(&mut chart.ok()?, lines, over, shown)
    } else {
        let chart = chart.build_cartesian_2d(left..right, values.log_scale());
        fill(&mut chart.ok()?, lines, over, shown)
    }
}

/// Draws axes, lines and a legend.
fn fill<'chart, 'text: 'chart, Y>(
    chart: &mut ChartContext<'chart, SVGBackend<'text>, Cartesian2d<RangedCoordf64, Y>>,
    lines: &[Line],
    over: &Axis<'_>,
    shown: &Axis<'_>,
) -> Option<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(TEXT)
        .axis_desc_style(TEXT)
        .x_desc(over.name)
        .y_desc(shown.name)
        .x_labels(over.labels)
        .y_labels(shown.labels)
        .x_label_formatter(over.label)
        .y_label_formatter(shown.label)
        .draw()
        .ok()?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points = line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .ok()?
            .label(&line.label)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .label_font(TEXT)
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()
        .ok()
}

/// The least and the most, a little apart if they are the same.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (least, most) = values.fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), value| (least.min(value), most.max(value)),
    );
    let far_apart = if most > least { most } else { least + 1.0 };
    least.is_finite().then_some((least, far_apart))
}
