// Google's Node libraries of Cloud Run, Cloud Scheduler and Cloud Logging, over gRPC or REST:
// node clients.js grpc 127.0.0.1:8491, node clients.js rest 127.0.0.1:8490
'use strict';

const assert = require('node:assert/strict');
const {setTimeout: sleep} = require('node:timers/promises');
const {ExecutionsClient, JobsClient, TasksClient} = require('@google-cloud/run');
const {CloudSchedulerClient} = require('@google-cloud/scheduler');
const {Logging} = require('@google-cloud/logging');
const {credentials} = require('@grpc/grpc-js');
const {PassThroughClient} = require('google-auth-library');

const [transport, address] = process.argv.slice(2);
const [apiEndpoint, port] = address.split(':');
const project = 'acme';
const parent = `projects/${project}/locations/europe-west4`;
// Over REST, the libraries reject with the error of their HTTP client, whose code is the HTTP status.
const [INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS] = transport === 'rest' ? [400, 404, 409] : [3, 5, 6];

// Only the endpoint and the credentials differ from those of a program on Google Cloud.
const options = {
  projectId: project,
  apiEndpoint,
  port: Number(port),
  authClient: new PassThroughClient(),
  ...(transport === 'rest' ? {fallback: true, protocol: 'http'} : {sslCreds: credentials.createInsecure()}),
};
const jobs = new JobsClient(options);
const executions = new ExecutionsClient(options);
const tasks = new TasksClient(options);
const scheduler = new CloudSchedulerClient(options);
const logging = new Logging(options);

const step = text => console.log(`  ${transport}: ${text}`);

async function eventually(read) {
  for (let left = 600; left > 0; left--) {
    const value = await read();
    if (value) return value;
    await sleep(50);
  }
  throw new Error(`${read} returned nothing for 30 seconds`);
}

async function cloudRun() {
  const name = `${parent}/jobs/${transport}`;
  const script = 'echo "$MESSAGE $0"; case $0 in fail) exit 3;; wait) exec sleep 60;; esac';
  const container = {image: 'app', command: ['/bin/sh', '-c', script], args: ['done']};
  const job = {template: {template: {containers: [container], maxRetries: 0}}, labels: {team: 'a'}};

  const [creation] = await jobs.createJob({parent, job, jobId: transport});
  const [created] = await creation.promise();
  assert.equal(created.name, name);
  assert.equal((await jobs.getJob({name}))[0].terminalCondition.state, 'CONDITION_SUCCEEDED');
  await assert.rejects(jobs.createJob({parent, job, jobId: transport}), {code: ALREADY_EXISTS});
  step('created a job, once');

  const [update] = await jobs.updateJob({job: {name, ...job, labels: {team: 'b'}}});
  await update.promise();
  assert.deepEqual((await jobs.getJob({name}))[0].labels, {team: 'b'});
  assert.ok((await jobs.listJobs({parent}))[0].some(listed => listed.name === name));
  await assert.rejects(jobs.getJob({name: `${name}-missing`}), {code: NOT_FOUND});
  step('updated, read and listed it');

  const overrides = {
    containerOverrides: [{args: ['again'], env: [{name: 'MESSAGE', value: 'hello'}]}],
    taskCount: 2,
    timeout: {seconds: 60},
  };
  const [run] = await jobs.runJob({name, overrides});
  assert.match(run.metadata.name, new RegExp(`^${name}/executions/${transport}-`));
  const [execution] = await run.promise();
  assert.equal(execution.name, run.metadata.name);
  assert.equal(execution.succeededCount, 2);
  assert.ok(Number(execution.completionTime.seconds) >= Number(execution.startTime.seconds));
  step('ran it with overrides and waited for it');

  const [attempted] = await tasks.listTasks({parent: execution.name});
  assert.deepEqual(attempted.map(task => task.index).sort(), [0, 1]);
  assert.deepEqual(attempted.map(task => task.lastAttemptResult.exitCode), [0, 0]);
  assert.equal((await tasks.getTask({name: attempted[0].name}))[0].uid, attempted[0].uid);
  step('listed its tasks');

  const [failing] = await jobs.runJob({name, overrides: {containerOverrides: [{args: ['fail']}]}});
  await assert.rejects(failing.promise(), /exit code: 3/);
  assert.equal((await executions.getExecution({name: failing.metadata.name}))[0].failedCount, 1);
  step('failed as expected');

  const [long] = await jobs.runJob({name, overrides: {containerOverrides: [{args: ['wait']}]}});
  const waiting = long.metadata.name;
  await eventually(async () => (await executions.getExecution({name: waiting}))[0].runningCount === 1);
  const [cancellation] = await executions.cancelExecution({name: waiting});
  const [cancelled] = await cancellation.promise();
  assert.equal(cancelled.cancelledCount, 1);
  step('cancelled an execution');

  assert.equal((await executions.listExecutions({parent: name}))[0].length, 3);
  const [removal] = await executions.deleteExecution({name: waiting});
  await removal.promise();
  assert.equal((await executions.listExecutions({parent: name}))[0].length, 2);
  step('listed executions and deleted one');
  return execution.name;
}

async function cloudLogging(execution) {
  const filter = [
    'resource.type="cloud_run_job"',
    `resource.labels.job_name="${transport}"`,
    `labels."run.googleapis.com/execution_name"="${execution.split('/').pop()}"`,
    `logName="projects/${project}/logs/run.googleapis.com%2Fstdout"`,
  ].join(' AND ');
  const entries = await eventually(async () => {
    const [found] = await logging.getEntries({filter});
    return found.length === 2 && found;
  });
  assert.deepEqual(entries.map(entry => entry.data), ['hello again', 'hello again']);
  const indices = entries.map(entry => entry.metadata.labels['run.googleapis.com/task_index']);
  assert.deepEqual(indices.sort(), ['0', '1']);
  step('read the log of an execution');

  const streamed = [];
  for await (const entry of logging.getEntriesStream({filter, pageSize: 1})) streamed.push(entry.data);
  assert.deepEqual(streamed, ['hello again', 'hello again']);
  step('streamed it, page by page');
}

async function ownLog() {
  const log = logging.log(`app-${transport}`);
  const tail = transport === 'grpc' && logging.tailEntries({filter: `log_id("app-${transport}")`});
  const tailed = [];
  if (tail) tail.on('data', ({entries}) => tailed.push(...entries.map(entry => entry.data.message)));
  await eventually(async () => {
    await log.write(log.entry({severity: 'WARNING', resource: {type: 'global'}}, {message: 'disk is full'}));
    return !tail || tailed.length > 0;
  });
  if (tail) tail.end();
  if (tail) step('tailed a log');

  const [entries] = await log.getEntries({filter: 'severity>=WARNING AND jsonPayload.message:"disk"'});
  assert.equal(entries[0].data.message, 'disk is full');
  assert.equal(entries[0].metadata.severity, 'WARNING');
  const [logs] = await logging.loggingService.listLogs({parent: `projects/${project}`});
  assert.ok(logs.includes(`projects/${project}/logs/app-${transport}`));
  await log.delete();
  assert.deepEqual((await log.getEntries())[0], []);
  step('wrote, read, listed and deleted a log');
}

async function cloudScheduler() {
  const name = `${parent}/jobs/${transport}-daily`;
  const uri = `https://europe-west4-run.googleapis.com/apis/run.googleapis.com/v1/namespaces/${project}/jobs/${transport}:run`;
  const oauthToken = {serviceAccountEmail: `runner@${project}.iam.gserviceaccount.com`};
  const job = {name, schedule: '0 3 * * *', timeZone: 'Asia/Tokyo', httpTarget: {uri, httpMethod: 'POST', oauthToken}};

  const [created] = await scheduler.createJob({parent, job});
  assert.equal(created.state, 'ENABLED');
  assert.ok(Number(created.scheduleTime.seconds) > Date.now() / 1000);
  await assert.rejects(scheduler.createJob({parent, job: {...job, name: `${name}-2`, schedule: 'daily'}}), {code: INVALID_ARGUMENT});
  step('created a schedule, and none with a wrong expression');

  const changed = {job: {name, schedule: '0 4 * * *'}, updateMask: {paths: ['schedule']}};
  assert.equal((await scheduler.updateJob(changed))[0].schedule, '0 4 * * *');
  assert.equal((await scheduler.pauseJob({name}))[0].state, 'PAUSED');
  assert.equal((await scheduler.resumeJob({name}))[0].state, 'ENABLED');
  assert.ok((await scheduler.listJobs({parent}))[0].some(listed => listed.name === name));
  step('updated, paused, resumed and listed it');

  const executed = async () => (await executions.listExecutions({parent: `${parent}/jobs/${transport}`}))[0].length;
  const before = await executed();
  await scheduler.runJob({name});
  await eventually(async () => (await executed()) === before + 1);
  await eventually(async () => (await scheduler.getJob({name}))[0].lastAttemptTime);
  step('ran it, which started the job');

  await scheduler.deleteJob({name});
  await assert.rejects(scheduler.getJob({name}), {code: NOT_FOUND});
  step('deleted it');
}

async function main() {
  const execution = await cloudRun();
  await cloudLogging(execution);
  await ownLog();
  await cloudScheduler();
  const [removal] = await jobs.deleteJob({name: `${parent}/jobs/${transport}`});
  await removal.promise();
  await assert.rejects(jobs.getJob({name: `${parent}/jobs/${transport}`}), {code: NOT_FOUND});
  step('deleted the job');
}

main().then(
  () => process.exit(0), // The stream of a tail would keep the process.
  error => {
    console.error(error);
    process.exit(1);
  },
);
