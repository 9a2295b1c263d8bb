//! Plots as SVG, made of the report alone.

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Distribution;
use crate::measure::duration;
use crate::value::{Curve, Line};

const SIZE: (u32, u32) = (1040, 380);
/// The part of the width that the legend takes, beside the plot: within, it would hide lines.
const LEGEND: u32 = 290;
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

/// Times over the part of the samples that took no longer, which is shown by its nines, so that the tail has room.
pub fn distributions(of: &[Distribution]) -> Option<String> {
    let lines: Vec<Line> = of
        .iter()
        .map(|distribution| {
            let quantiles = &distribution.quantiles;
            let points = quantiles.points.iter();
            Line {
                label: quantiles.label.clone(),
                points: points.map(|(part, time)| (nines(*part), *time)).collect(),
            }
        })
        .collect();
    let part = |nines: &f64| match 100.0 * (1.0 - 10f64.powf(-nines)) {
        most if most < 90.0 => format!("{most:.0}%"),
        tail if nines.fract() == 0.0 => format!("{}%", (tail * 1e6).round() / 1e6),
        // Between two that are known by their nines.
        _ => String::new(),
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

/// How many nines a part of all has: 0.999 has three. Rounded, lest the end of an axis miss its label.
fn nines(part: f64) -> f64 {
    (-(1.0 - part).log10() * 1e9).round() / 1e9
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
    /// Within such a factor a logarithmic axis, which is labelled at powers of ten, has one label or none.
    const FEW_LABELS: f64 = 30.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let (left, right) = range(points().map(|(x, _)| *x))?;
    let (low, high) = range(points().map(|(_, y)| *y).filter(|y| *y > 0.0))?;
    let values = low * 0.8..high * 1.25;
    let (plot, beside) = area.split_horizontally(SIZE.0 - LEGEND);
    legend(&beside, lines)?;
    let mut chart = ChartBuilder::on(&plot);
    chart.margin(12).x_label_area_size(46).y_label_area_size(84);
    if high / low < FEW_LABELS {
        let chart = chart.build_cartesian_2d(left..right, values);
        fill(&mut chart.ok()?, lines, over, shown)
    } else {
        let chart = chart.build_cartesian_2d(left..right, values.log_scale());
        fill(&mut chart.ok()?, lines, over, shown)
    }
}

/// Draws axes and lines.
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
    for (line, colour) in coloured(lines) {
        let points = line.points.iter().copied();
        let series = LineSeries::new(points, colour.stroke_width(2));
        chart.draw_series(series).ok()?;
    }
    Some(())
}

/// Which line is which.
fn legend(area: &DrawingArea<SVGBackend<'_>, Shift>, lines: &[Line]) -> Option<()> {
    const HEIGHT: i32 = 20;
    const STROKE: i32 = 20;
    for ((line, colour), top) in coloured(lines).zip((12..).step_by(HEIGHT as usize)) {
        let middle = top + HEIGHT / 2;
        let stroke = PathElement::new([(0, middle), (STROKE, middle)], colour.stroke_width(2));
        area.draw(&stroke).ok()?;
        let centred = TEXT
            .into_text_style(area)
            .pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(
            line.label.as_str(),
            (STROKE + 8, middle),
            centred,
        ))
        .ok()?;
    }
    Some(())
}

fn coloured(lines: &[Line]) -> impl Iterator<Item = (&Line, &RGBColor)> {
    lines.iter().zip(COLOURS.iter().cycle())
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
