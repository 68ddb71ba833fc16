# The one-time resources of docs/deploy.md: APIs, accounts, roles, the image repository, and GitHub's identity pool.
# `manage.py cloudrun_jobs export --format terraform` adds the jobs and schedules.

variable "project_id" {
  type = string
}

variable "region" {
  type    = string
  default = "asia-northeast1"
}

variable "repository" {
  description = "The repository of GitHub whose workflows may deploy, such as acme/web."
  type        = string
}

variable "jobs" {
  description = "The jobs that delay(), reconcile or a schedule starts, by their names in Cloud Run."
  type        = set(string)
  default     = ["collect-rates-production", "reconcile-cloudrun-runs-production"]
}

locals {
  apis = [
    "artifactregistry", "cloudbuild", "cloudresourcemanager", "cloudscheduler", "iam", "iamcredentials", "logging", "run",
    "secretmanager", "serviceusage", "sqladmin", "sts",
  ]

  # The roles on the whole project.
  project_roles = {
    app-web  = ["roles/cloudsql.client", "roles/run.viewer"]
    app-jobs = ["roles/cloudsql.client", "roles/run.viewer"]
    app-deployer = [
      "roles/cloudscheduler.admin",
      "roles/logging.logWriter",
      "roles/run.developer",
      "roles/storage.objectViewer",
    ]
  }
  project_bindings = merge([
    for account, roles in local.project_roles : { for role in roles : "${account} ${role}" => [account, role] }
  ]...)
  job_bindings = {
    for pair in setproduct(var.jobs, ["app-web", "app-jobs", "app-scheduler"]) : join(" ", pair) => pair
  }
  secret_bindings = {
    for pair in setproduct(["db-password", "secret-key"], ["app-web", "app-jobs"]) : join(" ", pair) => pair
  }
}

resource "google_project_service" "api" {
  for_each           = toset(local.apis)
  project            = var.project_id
  service            = "${each.value}.googleapis.com"
  disable_on_destroy = false
}

resource "google_service_account" "account" {
  for_each   = toset(["app-web", "app-jobs", "app-scheduler", "app-deployer"])
  project    = var.project_id
  account_id = each.value
}

resource "google_artifact_registry_repository" "app" {
  project       = var.project_id
  location      = var.region
  repository_id = "app"
  format        = "DOCKER"
  depends_on    = [google_project_service.api]
}

resource "google_project_iam_member" "project" {
  for_each = local.project_bindings
  project  = var.project_id
  role     = each.value[1]
  member   = "serviceAccount:${google_service_account.account[each.value[0]].email}"
}

resource "google_artifact_registry_repository_iam_member" "deployer" {
  project    = var.project_id
  location   = var.region
  repository = google_artifact_registry_repository.app.repository_id
  role       = "roles/artifactregistry.writer"
  member     = "serviceAccount:${google_service_account.account["app-deployer"].email}"
}

# The jobs exist after the first `sync_cloudrun_jobs`, or with the exported document.
resource "google_cloud_run_v2_job_iam_member" "caller" {
  for_each = local.job_bindings
  project  = var.project_id
  location = var.region
  name     = each.value[0]
  role     = "roles/run.jobsExecutorWithOverrides"
  member   = "serviceAccount:${google_service_account.account[each.value[1]].email}"
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each  = local.secret_bindings
  project   = var.project_id
  secret_id = each.value[0]
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${google_service_account.account[each.value[1]].email}"
}

resource "google_service_account_iam_member" "deployer" {
  for_each           = toset(["app-web", "app-jobs", "app-scheduler"])
  service_account_id = google_service_account.account[each.value].name
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${google_service_account.account["app-deployer"].email}"
}

resource "google_iam_workload_identity_pool" "github" {
  project                   = var.project_id
  workload_identity_pool_id = "github"
}

# Without the condition, every repository and branch on GitHub could impersonate app-deployer.
resource "google_iam_workload_identity_pool_provider" "github" {
  project                            = var.project_id
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  attribute_condition                = "assertion.repository == '${var.repository}' && assertion.ref in ['refs/heads/main', 'refs/heads/staging']"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
  }
  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  service_account_id = google_service_account.account["app-deployer"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/attribute.repository/${var.repository}"
}

# The variable WORKLOAD_IDENTITY_PROVIDER of deploy.yml.
output "workload_identity_provider" {
  value = "${google_iam_workload_identity_pool.github.name}/providers/github"
}
