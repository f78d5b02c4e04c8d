# For JupyterHub: one environment for all users, made in a copy of the student edition (or of this repository).
#
#     docker build --tag cs231n dist/student          # and in the hub: c.DockerSpawner.image = "cs231n"
#
# Not built yet: it needs Docker. JUPYTERHUB is the version of your hub.
FROM python:3.12-slim-bookworm
ARG JUPYTERHUB=5.*
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
COPY . /opt/cs231n
WORKDIR /opt/cs231n
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu --constraint constraints.txt \
    --editable '.[plots,torch,notebooks,test]' "jupyterhub==$JUPYTERHUB"
RUN useradd --create-home --shell /bin/bash learner
USER learner
WORKDIR /home/learner
# A user's first start copies the course into the home folder; Python finds that copy first.
ENV PYTHONPATH=/home/learner/cs231n CS231N_DATA_DIR=/home/learner/data
CMD ["sh", "-c", "cp -rn /opt/cs231n /home/learner/ && exec jupyterhub-singleuser"]
