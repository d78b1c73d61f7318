// What of npm, npx, yarn and pnpm a finished package needs: its scripts and the programs of its libraries are run,
// nothing is installed. The first argument is the one of them that was called; with `--line NAME` what would be run is printed.
'use strict';
const fs = require('fs');
const path = require('path');
const { spawn } = require('child_process');

const DEFAULTS = ['server.js', 'app.js', 'index.js', 'main.js', 'server.mjs', 'index.mjs'];

function fail(problem) {
  process.stderr.write(`dinp-start: ${problem}\n`);
  process.exit(127);
}

// The directory at or above this one that has a package.json, as npm looks for it.
function home(directory) {
  if (fs.existsSync(path.join(directory, 'package.json'))) return directory;
  const parent = path.dirname(directory);
  return parent === directory ? process.cwd() : home(parent);
}

function description(directory) {
  const file = path.join(directory, 'package.json');
  if (!fs.existsSync(file)) return {};
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    return fail(`package.json cannot be read: ${error.message}`);
  }
}

const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

// The line for a shell that runs a script; `start` has the defaults of npm and of its users.
function line(directory, name) {
  const { scripts = {}, main } = description(directory);
  const script = typeof scripts[name] === 'string' ? scripts[name].trim() : '';
  const before = typeof scripts[`pre${name}`] === 'string' ? `${scripts[`pre${name}`].trim()} && ` : '';
  if (script) return before + script;
  if (name !== 'start') return fail(`package.json has no script "${name}"`);
  const isFile = (file) => fs.statSync(path.join(directory, file), { throwIfNoEntry: false })?.isFile();
  const named = typeof main === 'string' && [main, `${main}.js`, path.join(main, 'index.js')].find(isFile);
  const file = named || DEFAULTS.find(isFile);
  if (file) return `${before}node ${quoted(file)}`;
  const nowhere = `neither a script "start" in package.json, nor the file that its "main" names, nor ${DEFAULTS.join(', ')}`;
  return fail(`the package has no control and no Procfile, and ${nowhere}`);
}

// Runs a line in place of this process, as far as Node can: signals reach it, and its end is this one's.
function run(directory, text, extra) {
  const bin = path.join(directory, 'node_modules', '.bin');
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
  const words = extra.map(quoted).join(' ');
  const child = spawn('/bin/sh', ['-c', words ? `${text} ${words}` : text], { cwd: directory, env, stdio: 'inherit' });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => process.exit(code ?? 128 + require('os').constants.signals[signal]));
}

const [tool, ...args] = process.argv.slice(2);
const directory = home(process.cwd());
const [command, ...rest] = args;
const extra = (words) => (words[0] === '--' ? words.slice(1) : words);
if (tool === '--line') {
  process.stdout.write(line(directory, command));
} else if (tool === 'npx' || command === 'exec') {
  const words = extra(tool === 'npx' ? args : rest);
  if (!words.length) fail(`${tool}: no program is named`);
  run(directory, words.map(quoted).join(' '), []);
} else if (command === 'run' || command === 'run-script') {
  run(directory, line(directory, rest[0]), extra(rest.slice(1)));
} else if (command === 'start') {
  run(directory, line(directory, 'start'), extra(rest));
} else {
  fail(`${tool} ${command ?? ''} is not there: of ${tool} an image has only start, run and exec, and nothing is installed in it`);
}
