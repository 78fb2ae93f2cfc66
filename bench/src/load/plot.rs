//! Plots as SVG, without a library: lines over axes.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 40.0;
const COLOURS: [&str; 5] = ["#0b7285", "#c2570c", "#1a7f4b", "#b42318", "#6741d9"];

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, x rising.
    pub points: Vec<(f64, f64)>,
}

/// Lines over linear axes from zero.
#[must_use]
pub fn lines(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let most = |take: fn(&(f64, f64)) -> f64| {
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(take))
            .fold(f64::MIN_POSITIVE, f64::max)
    };
    let (x_most, y_most) = (most(|point| point.0), most(|point| point.1));
    let x = |value: f64| LEFT + (WIDTH - LEFT - 20.0) * value / x_most;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / y_most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    // Writing to a String cannot fail.
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (at_y, at_x) = (y(y_most * part), x(x_most * part));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at_y:.1}\" y2=\"{at_y:.1}\" stroke=\"#d8dee6\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            WIDTH - 20.0,
            LEFT - 6.0,
            at_y + 4.0,
            short(y_most * part),
            HEIGHT - BOTTOM + 18.0,
            short(x_most * part),
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text x=\"16\" y=\"{:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1})\">{}</text>",
        f64::midpoint(LEFT, WIDTH),
        HEIGHT - 10.0,
        escape(x_name),
        HEIGHT / 2.0,
        HEIGHT / 2.0,
        escape(y_name),
    );
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"34\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            LEFT + 130.0 * index as f64,
            escape(&line.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.0}k", value / 1e3),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_point_is_at_the_top_and_text_is_escaped() {
        let line = Line {
            name: "a<b".into(),
            points: vec![(0.0, 0.0), (10.0, 5.0)],
        };
        let svg = lines("t", "x", "y", &[line]);
        assert!(svg.contains("80.0,310.0 700.0,40.0"), "{svg}");
        assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>\n"));
    }
}
