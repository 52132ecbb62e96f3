package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a shell on a pseudo-terminal.
type terminal struct {
	t    *testing.T
	tty  *os.File
	text chan string
	seen string
}

func openShell(t *testing.T, env []string, argv ...string) *terminal {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = env
	cmd.Dir = "/"
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 400})
	if err != nil {
		t.Fatalf("starting %s: %v", argv[0], err)
	}
	x := &terminal{t: t, tty: tty, text: make(chan string)}
	go func() {
		defer close(x.text)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			if n > 0 {
				x.text <- string(buf[:n])
			}
			if err != nil {
				return // EIO: the shell has ended
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = tty.Close()
		for range x.text {
		}
		_ = cmd.Wait()
	})
	return x
}

// send types a line.
func (x *terminal) send(line string) {
	x.t.Helper()
	if _, err := x.tty.WriteString(line + "\r"); err != nil {
		x.t.Fatal(err)
	}
}

// want waits for text on the screen, after what was waited for before.
func (x *terminal) want(text string) {
	x.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if i := strings.Index(x.seen, text); i >= 0 {
			x.seen = x.seen[i+len(text):]
			return
		}
		select {
		case more, ok := <-x.text:
			if !ok {
				x.t.Fatalf("the shell ended before %q, after %q", text, x.seen)
			}
			x.seen += more
			if strings.Contains(more, "\x1b[c") { // fish asks what terminal this is
				_, _ = x.tty.WriteString("\x1b[?62;c")
			}
		case <-deadline:
			x.t.Fatalf("no %q on the screen, but %q", text, x.seen)
		}
	}
}

// goroot has the shell print GOROOT. The typed line itself does not match.
func (x *terminal) goroot(want string) {
	x.t.Helper()
	x.send(`printf '[%s]\n' "G=$GOROOT"`)
	x.want("[G=" + want + "]")
}

// shellHome is a home whose start-up files have the hook, with projects and a
// mount.
func shellHome(t testing.TB, gofs string) (home string, env []string) {
	home = t.TempDir()
	for _, v := range []string{"1.22.8", "1.23.3"} {
		if err := fakeRelease(filepath.Join(home, "mount", v), v); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		".bashrc":                  fmt.Sprintf("PS1='ready> '\neval \"$(%s shell-init bash)\"\n", gofs),
		".zshrc":                   fmt.Sprintf("PS1='ready> '\neval \"$(%s shell-init zsh)\"\n", gofs),
		".config/fish/config.fish": fmt.Sprintf("function fish_prompt; printf 'ready> '; end\nfunction fish_greeting; end\n%s shell-init fish | source\n", gofs),
		"a/go.mod":                 "module a\n\ngo 1.22\n",
		"b/.go-version":            "1.23.3\n",
		"c/.go-version":            "1.21.5\n",
		"a/deep/er/x":              "",
		"none/x":                   "",
	} {
		file = filepath.Join(home, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return home, []string{"HOME=" + home, "PATH=/usr/bin:/bin", "TERM=xterm", "LANG=C.UTF-8", "GOFS_MOUNT=" + filepath.Join(home, "mount")}
}

var testShells = map[string][]string{
	"bash": {"bash", "--noprofile", "-i"},
	"zsh":  {"zsh", "-d", "-i"},
	"fish": {"fish", "-i"},
}

func TestShellHook(t *testing.T) {
	gofs := gofsBinary(t)
	for name, argv := range testShells {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home, env := shellHome(t, gofs)
			x := openShell(t, env, argv...)
			x.want("ready> ")
			x.goroot("")
			x.send("cd " + home + "/a/deep/er")
			x.goroot(home + "/mount/1.22.8")
			x.send("go build")
			x.want("go 1.22.8 GOROOT=" + home + "/mount/1.22.8 GOTOOLCHAIN=local: build")
			x.send("cd " + home + "/b")
			x.goroot(home + "/mount/1.23.3")

			// A file that changes under the prompt, to the same length and
			// within the resolution of any clock.
			x.send("echo 1.22.8 > .go-version")
			x.goroot(home + "/mount/1.22.8")
			x.send("rm .go-version")
			x.goroot("")
			x.send("echo 1.23.3 > .go-version")
			x.goroot(home + "/mount/1.23.3")

			// Not imported: one line, and again when it has arrived.
			x.send("cd " + home + "/c")
			x.want("is not imported (gofs import 1.21.5)")
			x.goroot("")
			x.send("mkdir ../mount/1.21.5 && echo go1.21.5 > ../mount/1.21.5/VERSION")
			x.goroot(home + "/mount/1.21.5")

			// A variable counts once it is exported.
			set, export, unset := "GOFS_VERSION=1.23.3", "export GOFS_VERSION", "unset GOFS_VERSION"
			if name == "fish" {
				set, export, unset = "set -g GOFS_VERSION 1.23.3", "set -gx GOFS_VERSION 1.23.3", "set -e GOFS_VERSION"
			}
			x.send(set)
			x.goroot(home + "/mount/1.21.5")
			x.send(export)
			x.goroot(home + "/mount/1.23.3")
			x.send(unset)

			// Outside everything is as it was.
			x.send("cd " + home + "/none")
			x.goroot("")
			x.send(`printf '[%s]\n' "P=$PATH" | tr ' ' ':'`)
			x.want("[P=/usr/bin:/bin]")
		})
	}
}

// countedHome is a shellHome whose hooks count their calls of gofs, a line
// each in the file calls.
func countedHome(t testing.TB, gofs string) (home string, env []string, calls string) {
	home, env = shellHome(t, gofs)
	calls = filepath.Join(home, "calls")
	counter := filepath.Join(home, "gofs")
	script := fmt.Sprintf("#!/bin/sh\necho \"$*\" >> %s\nexec %s \"$@\"\n", calls, gofs)
	if err := os.WriteFile(counter, []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	for shell := range testShells {
		hook, err := exec.Command(gofs, "shell-init", shell).Output()
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(hook), gofs, counter)
		if err := os.WriteFile(filepath.Join(home, "hook."+shell), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return home, env, calls
}

// quietShells run a line without any start-up file.
var quietShells = map[string][]string{
	"bash": {"bash", "--norc", "-c"},
	"zsh":  {"zsh", "-f", "-c"},
	"fish": {"fish", "-N", "-c"},
}

// While the version files stay the same the hook starts nothing.
func TestShellHookCallsOnce(t *testing.T) {
	gofs := gofsBinary(t)
	for shell, argv := range quietShells {
		t.Run(shell, func(t *testing.T) {
			home, env, calls := countedHome(t, gofs)
			line := strings.NewReplacer("HOME", home, "SHELL", shell).Replace(
				"source HOME/hook.SHELL; cd HOME/a/deep/er; __gofs_hook; __gofs_hook; cd ..; __gofs_hook; cd er; __gofs_hook; " +
					"cd HOME/b; __gofs_hook; __gofs_hook; cd HOME/a; __gofs_hook; printf '[%s]' $GOROOT; cd HOME/c; __gofs_hook; __gofs_hook; __gofs_hook")
			cmd := exec.Command(argv[0], append(argv[1:], line)...)
			cmd.Env, cmd.Dir = env, filepath.Join(home, "none")
			out, err := cmd.Output()
			if want := "[" + filepath.Join(home, "mount", "1.22.8") + "]"; err != nil || string(out) != want {
				t.Errorf("printed %q, %v, want %q", out, err, want)
			}
			data, err := os.ReadFile(calls)
			if n := strings.Count(string(data), "env --hook"); err != nil || n != 5 {
				t.Errorf("%d calls of gofs, %v, want 5: at the start, for a, b, a again and c, whose release is not here\n%s", n, err, data)
			}
		})
	}
}

// A login shell that runs a script has the release of its folder, though it
// shows no prompt.
func TestShellHookInScripts(t *testing.T) {
	gofs := gofsBinary(t)
	for shell, argv := range quietShells {
		t.Run(shell, func(t *testing.T) {
			home, env, _ := countedHome(t, gofs)
			line := strings.NewReplacer("HOME", home, "SHELL", shell).Replace("source HOME/hook.SHELL; go build")
			cmd := exec.Command(argv[0], append(argv[1:], line)...)
			cmd.Env, cmd.Dir = env, filepath.Join(home, "a")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), "go 1.22.8 ") {
				t.Errorf("printed %q, %v", out, err)
			}
		})
	}
}

// hookLoops run the hook in batches of 20 and print nanoseconds before and
// after each: in one directory, and changing it every time without changing
// the answer.
var hookLoops = map[string]string{
	"bash": `source HOOK; cd DIR; __gofs_hook
		for ((r=0;r<BATCHES;r++)); do date +%s%N; for ((i=0;i<20;i++)); do __gofs_hook; done; date +%s%N; done
		for ((r=0;r<BATCHES;r++)); do date +%s%N; for ((i=0;i<10;i++)); do cd ..; __gofs_hook; cd er; __gofs_hook; done; date +%s%N; done`,
	"zsh": `source HOOK; cd DIR; __gofs_hook
		for ((r=0;r<BATCHES;r++)); do date +%s%N; for ((i=0;i<20;i++)); do __gofs_hook; done; date +%s%N; done
		for ((r=0;r<BATCHES;r++)); do date +%s%N; for ((i=0;i<10;i++)); do cd ..; __gofs_hook; cd er; __gofs_hook; done; date +%s%N; done`,
	"fish": `source HOOK; cd DIR; __gofs_hook
		for r in (seq BATCHES); date +%s%N; for i in (seq 20); __gofs_hook; end; date +%s%N; end
		for r in (seq BATCHES); date +%s%N; for i in (seq 10); cd ..; __gofs_hook; cd er; __gofs_hook; end; date +%s%N; end`,
}

// BenchmarkShellHook measures the hook while nothing changes, which should
// take less than 2 ms: the median and the best of batches of 20.
func BenchmarkShellHook(b *testing.B) {
	gofs := gofsBinary(b)
	for shell, loop := range hookLoops {
		b.Run(shell, func(b *testing.B) {
			home, env, _ := countedHome(b, gofs)
			argv := quietShells[shell]
			loop = strings.NewReplacer("HOOK", filepath.Join(home, "hook."+shell), "DIR", home+"/a/deep/er", "BATCHES", strconv.Itoa(max(b.N, 2))).Replace(loop)
			cmd := exec.Command(argv[0], append(argv[1:], loop)...)
			cmd.Env = env
			out, err := cmd.Output()
			if err != nil {
				b.Fatal(err)
			}
			var batches []time.Duration
			for stamps := strings.Fields(string(out)); len(stamps) > 1; stamps = stamps[2:] {
				from, err1 := strconv.ParseInt(stamps[0], 10, 64)
				to, err2 := strconv.ParseInt(stamps[1], 10, 64)
				if err1 != nil || err2 != nil {
					b.Fatalf("stamps %s", out)
				}
				batches = append(batches, time.Duration(to-from)/20)
			}
			same, bestSame := summary(batches[:len(batches)/2])
			cd, bestCd := summary(batches[len(batches)/2:])
			b.ReportMetric(same, "same-ms")
			b.ReportMetric(bestSame, "best-same-ms")
			b.ReportMetric(cd, "cd-ms")
			b.ReportMetric(bestCd, "best-cd-ms")
		})
	}
}

// direnv is the real one.
func TestDirenv(t *testing.T) {
	gofs := gofsBinary(t)
	home, env := shellHome(t, gofs)
	hook, err := exec.Command(gofs, "shell-init", "direnv").Output()
	if err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(home, ".config/direnv/lib")
	if err := os.MkdirAll(lib, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lib, "gofs.sh"), hook, 0o666); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]struct{ envrc, version string }{
		"a": {"use gofs\n", "1.22.8"},
		"b": {"use gofs 1.22\n", "1.22.8"},
		"c": {"use gofs 1.23.3\n", "1.23.3"},
	} {
		dir = filepath.Join(home, dir)
		if err := os.WriteFile(filepath.Join(dir, ".envrc"), []byte(want.envrc), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"allow", dir}, {"exec", dir, "sh", "-c", `echo "$GOROOT"; go build`}} {
			cmd := exec.Command("direnv", args...)
			cmd.Env, cmd.Dir = env, dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("direnv %v: %v\n%s", args, err, out)
			}
			if root := filepath.Join(home, "mount", want.version); args[0] == "exec" &&
				(!strings.Contains(string(out), root+"\n") || !strings.Contains(string(out), "go "+want.version+" GOROOT="+root)) {
				t.Errorf("direnv exec in %s: %s", dir, out)
			}
		}
	}
}
