from airflow.sdk import DAG, task

ON_SLURM = {"executor": "my_company.executors.SlurmExecutor", "queue": "long"}

with DAG("hpc") as dag:

    @task(executor="ecs")
    def prepare(): ...

    @task.virtualenv(**ON_SLURM)
    def simulate(): ...

    @task(executor="SlurmExecutor")
    def collect(): ...

    prepare() >> simulate() >> collect()
