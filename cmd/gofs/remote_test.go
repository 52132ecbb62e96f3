package main

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"gofs/resolve"
)

func releases(names string) []resolve.Release {
	var list []resolve.Release
	for name := range strings.FieldsSeq(names) {
		r := resolve.Release{Name: name, Version: name, Platform: resolve.HostPlatform}
		if v, p, ok := strings.Cut(name, "@"); ok {
			r.Name, r.Version, r.Platform = v+"."+p, v, p
		}
		list = append(list, r)
	}
	return list
}

const remoteNames = "1.22.12 1.26rc1 1.24.0 1.23.3 1.25.5 1.24.11 1.23.12 1.25.9@plan9-386"

func TestOutdated(t *testing.T) {
	got := outdated(releases("1.22.12 1.23.3 1.23.0 1.24.0 1.19.1 1.25.0@plan9-386"), releases(remoteNames))
	want := []outdatedMinor{{"1.24", "1.24.0", "1.24.11", true}, {"1.23", "1.23.3", "1.23.12", false}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("outdated = %v, want %v", got, want)
	}
}

func TestRemoteList(t *testing.T) {
	got := remoteList(releases("1.23.3"), releases(remoteNames))
	want := []remoteRelease{
		{"1.26rc1", false, true}, {"1.25.5", false, true}, {"1.24.11", false, true}, {"1.24.0", false, true},
		{"1.23.12", false, false}, {"1.23.3", true, false}, {"1.22.12", false, false},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("remoteList = %v, want %v", got, want)
	}
}

// The verbs on top of a list that a source gives.
func TestRemoteVerbs(t *testing.T) {
	saveList, saveRemote := listInstalled, remoteReleases
	t.Cleanup(func() { listInstalled, remoteReleases = saveList, saveRemote })
	listInstalled = func(*globals, string) (resolve.Installed, error) {
		return resolve.Installed{Dir: "/gofs", Releases: releases("1.24.0 1.25.5")}, nil
	}
	remoteReleases = func(context.Context, *globals) ([]resolve.Release, error) { return releases(remoteNames), nil }
	g := &globals{}
	var out strings.Builder
	cmd := newOutdatedCmd(g)
	cmd.SetOut(&out)
	cmd.SetArgs(nil)
	if err := cmd.Execute(); err != nil || !strings.Contains(out.String(), "1.24   1.24.0  1.24.11  yes        gofs import 1.24.11\n") {
		t.Errorf("outdated printed %q, %v", out.String(), err)
	}
	out.Reset()
	cmd = newLsRemoteCmd(g)
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--json"})
	if err := cmd.Execute(); err != nil || !strings.Contains(out.String(), `{"version":"1.25.5","here":true,"supported":true}`) {
		t.Errorf("ls-remote printed %q, %v", out.String(), err)
	}
	remoteReleases = func(context.Context, *globals) ([]resolve.Release, error) { return nil, errors.New("no network") }
	cmd = newLsRemoteCmd(g)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(nil)
	if err := cmd.Execute(); err == nil || err.Error() != "no network" {
		t.Errorf("without a list: %v", err)
	}
}

func TestPrunableByAge(t *testing.T) {
	saveNow := now
	t.Cleanup(func() { now = saveNow })
	today := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	now = func() time.Time { return today }
	list := releases("1.22.0 1.22.8 1.23.3 1.21.0")
	list[0].Imported = today.AddDate(0, -6, 0)
	list[1].Imported = today.AddDate(0, 0, -3)
	list[2].Imported = today.AddDate(0, -6, 0)
	var pruned []string
	for _, v := range prunable(list, map[string]string{"1.23.3": "/p/go.mod:1"}, 90*24*time.Hour, 0) {
		if v.prune {
			pruned = append(pruned, v.name)
		}
	}
	// 1.21.0 has no date: its age is not known, so it stays.
	if !reflect.DeepEqual(pruned, []string{"1.22.0"}) {
		t.Errorf("pruned %v", pruned)
	}
}

// prune --yes hands the names on; without it nothing is removed.
func TestPruneRemoves(t *testing.T) {
	saveList, saveRemove := listInstalled, removeReleases
	t.Cleanup(func() { listInstalled, removeReleases = saveList, saveRemove })
	listInstalled = func(*globals, string) (resolve.Installed, error) {
		return resolve.Installed{Dir: "/gofs", Releases: releases("1.24.0 1.25.5")}, nil
	}
	var removed []string
	removeReleases = func(_ context.Context, _ *globals, names []string) error { removed = names; return nil }
	for _, tt := range []struct {
		args string
		want []string
	}{{"", nil}, {"--yes --dry-run", nil}, {"--yes", []string{"1.25.5", "1.24.0"}}} {
		removed = nil
		cmd := newPruneCmd(&globals{})
		cmd.SetOut(new(strings.Builder))
		cmd.SetArgs(append(strings.Fields(tt.args), t.TempDir()))
		t.Setenv("HOME", t.TempDir())
		if err := cmd.Execute(); err != nil || !reflect.DeepEqual(removed, tt.want) {
			t.Errorf("prune %s removed %v, %v, want %v", tt.args, removed, err, tt.want)
		}
	}
}

func TestNeededRelease(t *testing.T) {
	saveList := listInstalled
	t.Cleanup(func() { listInstalled = saveList })
	listInstalled = func(*globals, string) (resolve.Installed, error) {
		return resolve.Installed{Dir: "/gofs", Releases: releases("1.24.0")}, nil
	}
	for version, want := range map[string]string{"1.24": "", "1.23.3": "1.23.3", "1.25": "1.25"} {
		t.Setenv("GOFS_VERSION", version)
		if got, err := neededRelease(&globals{}, ""); got != want || err != nil {
			t.Errorf("%s needs %q, %v, want %q", version, got, err, want)
		}
	}
}
