package main

import (
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// colors tell the peers apart, also where red and green look the same (Okabe
// and Ito).
var colors = []color.Color{
	color.RGBA{0, 114, 178, 255}, color.RGBA{86, 180, 233, 255}, color.RGBA{0, 0, 0, 255}, color.RGBA{153, 153, 153, 255},
	color.RGBA{230, 159, 0, 255}, color.RGBA{0, 158, 115, 255}, color.RGBA{204, 121, 167, 255}, color.RGBA{213, 94, 0, 255},
}

// plots writes the plots into a folder and returns their names.
func (r *results) plots(dir string) ([]string, error) {
	var written []string
	for _, p := range []struct {
		file, title string
		mode        mode
		fio         bool
		of          func(sample) float64
	}{
		{"warm.svg", "Wall time, warm, as a multiple of the disk's (less is better)", warm, false, wall},
		{"cold.svg", "Wall time, cold, as a multiple of the disk's (less is better)", cold, false, wall},
		{"fio-warm.svg", "fio bandwidth, warm, as a multiple of the disk's (more is better)", warm, true, bandwidth},
		{"fio-cold.svg", "fio bandwidth, cold, as a multiple of the disk's (more is better)", cold, true, bandwidth},
	} {
		drawn, err := r.plot(filepath.Join(dir, p.file), p.title, p.mode, p.fio, p.of)
		if err != nil {
			return nil, err
		}
		if drawn {
			written = append(written, p.file)
		}
	}
	drawn, err := r.plotRoom(filepath.Join(dir, "room.svg"))
	if drawn {
		written = append(written, "room.svg")
	}
	return written, err
}

// plotRoom draws a bar for each way to keep the releases.
func (r *results) plotRoom(file string) (drawn bool, err error) {
	var labels []string
	var values plotter.Values
	numbers := plotter.XYLabels{}
	for _, a := range slices.Backward(r.Archivers) { // the first at the top
		if a.Bytes > 0 {
			numbers.XYs = append(numbers.XYs, plotter.XY{X: a.Bytes / 1e6, Y: float64(len(values))})
			numbers.Labels = append(numbers.Labels, fmt.Sprintf(" %.0f", a.Bytes/1e6))
			labels, values = append(labels, a.Name), append(values, a.Bytes/1e6)
		}
	}
	if len(values) == 0 {
		return false, nil
	}
	p := plot.New()
	p.Title.Text = fmt.Sprintf("Room for %d releases, MB (less is better)", len(r.Releases))
	bars, err := plotter.NewBarChart(values, vg.Points(14))
	if err != nil {
		return false, err
	}
	bars.Horizontal = true
	bars.LineStyle.Width = 0
	bars.Color = colors[0]
	text, err := plotter.NewLabels(numbers)
	if err != nil {
		return false, err
	}
	for i := range text.TextStyle {
		text.TextStyle[i].YAlign = draw.YCenter
	}
	p.Add(bars, text)
	p.NominalY(labels...)
	p.Y.Label.Text = " " // else the longest name is cut
	p.X.Min, p.X.Max = 0, 1.1*slices.Max(values)
	return true, p.Save(18*vg.Centimeter, vg.Length(len(values)+3)*vg.Points(24), file)
}

// plot draws a group of bars for each workload, a bar for each peer. It draws
// nothing where nothing was measured.
func (r *results) plot(file, title string, m mode, fio bool, of func(sample) float64) (drawn bool, err error) {
	var labels []string
	for _, name := range r.workloads() {
		if strings.HasPrefix(name, "fio ") == fio && r.find(name, m, peerDisk) != nil {
			labels = append(labels, name)
		}
	}
	if len(labels) == 0 {
		return false, nil
	}
	p := plot.New()
	p.Title.Text = title
	p.Legend.Top = true
	var peers []*peer
	for _, peer := range r.Peers {
		if peer.Missing == "" {
			peers = append(peers, peer)
		}
	}
	width := vg.Points(60 / float64(len(peers)))
	highest := 1.0
	for i, peer := range peers {
		values := make(plotter.Values, len(labels))
		for j, name := range labels {
			ratio, _ := r.ratio(name, m, peer.Name, peerDisk, of)
			values[j] = ratio
			highest = math.Max(highest, ratio)
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return false, err
		}
		bars.LineStyle.Width = 0
		bars.Color = colors[i%len(colors)]
		bars.Offset = width * vg.Length(float64(i)-float64(len(peers)-1)/2)
		p.Add(bars)
		p.Legend.Add(peer.Name, bars)
	}
	p.NominalX(labels...)
	// A peer that is ten times slower must not make the others a flat line.
	p.Y.Min, p.Y.Max = 0, math.Min(highest*1.1, 5)
	p.Add(plotter.NewGrid())
	return true, p.Save(vg.Length(len(labels)+2)*vg.Points(75), 12*vg.Centimeter, file)
}
