"""Redaction, where records enter: no secret of a command line gets in, the rest stays as it is.

Architecture, section 5. In the table of command lines, what stands between ``<`` and ``>``
has to go, and nothing else may.
"""

from __future__ import annotations

import math
import re
import shlex
import string
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from linnix_core import (
    Alert,
    CgroupSample,
    Evidence,
    ProcessEvent,
    ProcessKey,
    ProcessSample,
    Subject,
    encode,
)
from linnix_core.redact import (
    _WAYS,
    MARK,
    MAX_ARGS,
    MAX_ARGS_CHARS,
    MAX_COMM_CHARS,
    MAX_PATH_CHARS,
    clean_alert,
    clean_args,
    clean_cgroup,
    clean_event,
    clean_sample,
    clean_text,
    is_alert,
)
from linnix_core.redact import _clean_words as every_word_followed
from linnix_core.testing.secrets import POSITIONS, command_lines, shapes

SHAPES = shapes(seed=1)
# Put together here, so that no scanner takes this file for a leak.
PRIVATE_KEY = (
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
)

WITH_SECRETS = """
mysql -uroot -p<hunter2> shop
mysql --host db --user=root --password=<hunter2> shop
mysqldump -h db -p<correct-horse> --all-databases
mariadb-dump -u backup -p<hunter2> --single-transaction shop
mysqladmin -u root --password <hunter2> status
/usr/bin/mysql --defaults-file=/etc/my.cnf -p<hunter2>
psql postgresql://app:<hunter2>@db.internal:5432/prod?sslmode=require
psql 'host=db user=app password=<hunter2> dbname=prod'
pg_dump -d postgres://app:<p%40ss:word>@db/prod -f dump.sql
psql postgres://app:<p@ss>@db/prod
psql postgres://app:<cut-off-by-the-kern>
env PGPASSWORD=<hunter2> psql -h db -U app
mongosh 'mongodb+srv://admin:<hunter2>@cluster0.example.net/?retryWrites=true'
mongodump --host db -u admin -p <hunter2> --out /backup
mongo --username admin --password <hunter2> --port 27017
redis-cli -h cache -a <hunter2> --latency
redis-cli -a<hunter2> ping
redis-cli -u redis://:<hunter2>@cache:6379/0
valkey-cli --pass <hunter2> info
sqlcmd -S db -U sa -P <hunter2> -Q 'select 1'
bcp shop.dbo.items out items.dat -U sa -P<hunter2>
sqlplus -s scott/<tiger>@orcl @report.sql
cqlsh -u cassandra -p <hunter2> node1
clickhouse-client --user default --password <hunter2>
influx -username admin -password <hunter2> -execute 'show databases'
cypher-shell -u neo4j -p <hunter2>
app 'Server=db;Database=shop;User Id=sa;Password=<hunter2>;Encrypt=yes'
app 'DRIVER={ODBC};SERVER=db;UID=sa;PWD=<hunter2>;'
aws configure set aws_secret_access_key <wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY>
env AWS_ACCESS_KEY_ID=<@aws> AWS_SECRET_ACCESS_KEY=<wJalrXUtnFEMI/K7MDENG> terraform apply
s3cmd --access_key=<@aws> --secret_key=<wJalrXUtnFEMI/K7MDENG> ls
az login --service-principal -u app -p <hunter2> --tenant contoso
azcopy cp https://a.blob.core.windows.net/c?sv=2022&sig=<Z9%2Bx1> /data
app 'DefaultEndpointsProtocol=https;AccountName=a;AccountKey=<abc123==>;EndpointSuffix=x'
gcloud config set auth/x --access-token <ya29.a0AfH6SM>
gsutil -o Credentials:<gs_secret_access_key=wJalrXUtnFEMI>
kubectl create secret generic db --from-literal=password=<hunter2>
kubectl --token=<abcdef.0123456789abcdef> get pods
kubectl config set-credentials dev --token <abcdef0123>
helm upgrade app ./chart --set postgres.password=<hunter2,replicas=2>
helm registry login -u me -p <hunter2> registry.example.com
terraform apply -var db_password=<hunter2>
vault login <@vault>
env VAULT_TOKEN=<s.1234567890> vault kv get secret/app
vault kv put secret/app api_key=<hunter2>
consul members -token=<0b9c8f52-aaaa>
doctl compute droplet list --access-token <0123456789>
heroku config:set SECRET_KEY_BASE=<0123456789abcdef>
curl -u admin:<hunter2> https://example.com/
curl -uadmin:<hunter2> https://example.com/
curl -sSfu admin:<hunter2> https://example.com/
curl --user admin:<hunter2> --proxy-user me:<hunter3> https://example.com/
curl --user=admin:<hunter2> https://example.com/
curl -H 'Authorization: <Bearer abc.def-ghi>' https://example.com/
curl -H 'Authorization: <Basic dXNlcjpodW50ZXIy>' https://example.com/
curl -H 'X-Api-Key: <0123456789>' -H 'PRIVATE-TOKEN: <abcdef>' https://example.com/
curl -H 'Cookie: <theme=dark; session=abc>' https://example.com/
curl -d '{"user": "me", "password": "<two words>", "remember": true}' https://example.com/
curl -d 'user=me&password=<hunter2>&remember=1' https://example.com/
curl --data-urlencode 'password=<hunter2 and more>' https://example.com/
curl https://example.com/hook?token=<abcdef>&page=2
curl https://example.com/a?X-Amz-Expires=300&X-Amz-Signature=<fe5f80f77d5fa3>
curl --oauth2-bearer <abcdef> https://example.com/
curl -X POST https://<hooks.slack.com/services/T000/B000/XXXXXXXX>
curl https://api.telegram.org/<@telegram>/sendMessage
curl --cert client.pem:<hunter2> https://example.com/
wget --user=me --password=<hunter2> https://example.com/
wget --header 'Authorization: <token 0123456789>' https://example.com/
http -a me:<hunter2> https://example.com/
aria2c --http-user=me --http-passwd=<hunter2> --rpc-secret=<hunter3> https://example.com/
git clone https://me:<hunter2>@git.example.com/repo.git
git clone https://oauth2:<@gitlab>@gitlab.com/a/b.git
git clone https://<@github>@github.com/a/b.git
git clone https://<0123456789abcdef0123456789abcdef>@git.example.com/a/b.git
git -c http.extraheader='AUTHORIZATION: <basic eDpodW50ZXIy>' fetch
gh auth login --token <@github-fine>
docker login -u me -p <hunter2> registry.example.com
docker run -e POSTGRES_PASSWORD=<hunter2> -p 5432:5432 postgres:16
docker run --env MYSQL_ROOT_PASSWORD=<hunter2> mysql:8
podman login --username me --password <hunter2> quay.io
docker build --build-arg NPM_TOKEN=<@npm> .
sshpass -p <hunter2> ssh -p 2222 me@host
sshpass -p<hunter2> rsync -a /data host:/data
ssh-keygen -t ed25519 -N <hunter2> -f id
ssh-keygen -p -P <old-one> -N <new-one> -f id
openssl pkcs12 -export -passout <pass:hunter2> -in cert.pem
openssl rsa -in key.pem -passin <pass:hunter2>
openssl enc -aes-256-cbc -k <hunter2> -in a -out b
gpg --batch --passphrase <hunter2> -d file.gpg
zip -r -P <hunter2> out.zip data
7z a -p<hunter2> out.7z data
rar a -hp<hunter2> out.rar data
ldapsearch -x -D cn=admin,dc=example -w <hunter2> -b dc=example
ipmitool -I lanplus -H bmc -U admin -P <hunter2> power status
smbclient //host/share -U me%<hunter2>
mount -t cifs //host/share /mnt -o username=me,password=<hunter2>
lftp -u me,<hunter2> ftp.example.com
snmpwalk -v2c -c <private> switch1
snmpget -v3 -u me -A <authpass> -X <privpass> switch1
mosquitto_pub -h broker -u me -P <hunter2> -t a -m b
nmcli dev wifi connect home password <hunter2>
wpa_passphrase home <hunter2>
htpasswd -b /etc/htpasswd me <hunter2>
useradd -m -p <$6$salt$hash> alice
xfreerdp /u:me /p:<hunter2> /v:host
keytool -genkey -keystore k.jks -storepass <changeit> -keypass <changeit2>
java -Djavax.net.ssl.keyStorePassword=<changeit> -jar app.jar
java -jar app.jar --spring.datasource.password=<hunter2> --server.port=8080
ansible-playbook site.yml -e ansible_become_pass=<hunter2>
npm config set //registry.npmjs.org/:_authToken=<@npm>
pip install --index-url https://me:<hunter2>@pypi.example.com/simple app
twine upload -u __token__ -p <@pypi> dist/app.whl
python train.py --hf-key <@hugging-face> --epochs 3
python ask.py --llm '{"openai_api_key":"<@openai>","model":"x"}'
stripe listen --api-key <@stripe>
notify <@slack> '#ops'
maps --google <@google>
app --jwt <@jwt>
server --auth --password <hunter2>
env TOKEN=<abcdef> SSH_AUTH_SOCK=/tmp/agent.1 server
rails_server SECRET_TOKEN=<abcdef> PORT=3000
sh -c 'mysql -u root -p<hunter2> shop < dump.sql'
bash -lc 'sshpass -p <"my pass"> ssh host uptime'
su - deploy -c 'curl -u me:<hunter2> https://example.com/ && echo done'
ssh host "bash -c 'mysql -p<hunter2> shop'"
sh -c 'exec app --password <"two words"> --verbose'
php -r "['password' => '<hunter2>', 'host' => 'db']"
node -e 'connect({ password: "<hun\\"ter2>", host: "db" })'
"""

HARMLESS = """
gcc -O2 -Wall -pthread -c keyboard.c -o keyboard.o
g++ -std=c++20 -fPIC -DKEYBOARD=us -DMONKEY=1 main.cc
clang -fpass-plugin=./tokenizer.so -emit-llvm tokens.c
ld -plugin /usr/lib/lto-wrapper -plugin-opt=-pass-through=-lgcc a.o
ps -p 4242 -o pid,comm
ps aux
mkdir -p /srv/app/tokens
cp -p a b
tar -cpf backup.tar /etc/passwd
ssh -p 2222 deploy@host uptime
ssh -o PasswordAuthentication=no -i /home/me/.ssh/id_ed25519 git@github.com
/usr/sbin/sshd -D -o AuthorizedKeysFile=/etc/ssh/authorized_keys
git clone ssh://git@github.com/a/b.git
git clone https://github.com/author/passwordless.git
git commit --author 'A U Thor <author@example.com>' -m 'Fix the tokenizer'
git log --author=me --show-signature
git -c credential.helper=store fetch
docker run -p 8080:80 -u 1000:1000 nginx
docker login --password-stdin -u me registry.example.com
docker compose -p shop up
mysql -u root -p shop
mysql -h db -P 3306 -u app shop
mysqld --port=3306 --basedir=/usr
psql -h db -p 5432 -U app shop
redis-server *:6379
redis-cli -p 6379 info
rsync -a --password-file=/etc/rsync.secret src/ host::dst
rsync -a --password-file /etc/rsync.secret src/ host::dst
gpg --batch --passphrase-file /run/pass --pinentry-mode loopback -d f.gpg
gpg --passphrase-fd 0 -d f.gpg
openvpn --config client.ovpn --askpass /etc/openvpn/pass.txt
kube-apiserver --token-auth-file=/etc/k/tokens.csv --authorization-mode=Node,RBAC
kubelet --authentication-token-webhook=true --tls-private-key-file=/var/lib/k.key
kubectl get secrets -n monkey
python -m pip install tokenizers keyboard passlib
python train.py --tokenizer gpt2 --max-tokens 4096 --num_tokens=128
python -m http.server 8000
ffmpeg -y -i in.mp4 -pass 1 -an out.mp4
ffmpeg -i in.wav -af lowpass=f=3000 out.wav
x264 --pass 2 --bitrate 2000 -o out.264 in.y4m
sox in.wav out.wav bandpass 1000 200
curl -fsSL -o out.tar.gz https://example.com:8443/a/b.tar.gz
curl -u me https://example.com/
curl --cookie-jar /tmp/jar https://example.com/
curl http://localhost:8080
wget -r --no-parent --load-cookies cookies.txt https://example.com/
env PWD=/home/me OLDPWD=/ SSH_AUTH_SOCK=/tmp/agent.1 XAUTHORITY=/run/x zsh
env GOOGLE_APPLICATION_CREDENTIALS=/etc/gcp.json POSTGRES_PASSWORD_FILE=/run/secrets/pg app
ansible-playbook site.yml --private-key ~/.ssh/id_ed25519 --ask-pass
apptainer exec --pwd /work image.sif run
find / -name '*.key' -newer /etc/passwd
grep -rn password /etc
cat /var/log/auth.log
man 5 passwd
passwd alice
/sbin/agetty -o '-p -- \\\\u' --noclear tty1 linux
/bin/login -p -- root
ssh-agent -s
ssh-keygen -t ed25519 -N '' -f id
keytool -list -keystore k.jks
setxkbmap -layout us -option compose:ralt
xinput test keyboard
compass watch --no-sass-cache --bypass=1
monkey --secret-name db --session-timeout=30
unzip -p archive.zip readme
zip -r out.zip data
7z x out.7z
smbclient -L host -N -p 445
ipmitool -I lanplus -p 623 -H bmc sensor
snmpd -Lsd -Lf /dev/null
nginx: worker process
sleep 3600
"""


def cases(table: str) -> list[str]:
    return [line for line in table.strip().splitlines() if line]


def given_and_expected(line: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arguments of a line of the table, with its secrets and with the mark in their place."""
    secret = re.compile(r"<([^<> ][^<>]*)>")
    filled = re.sub(r"<@([a-z-]+)>", lambda found: f"<{SHAPES[found[1]]}>", line)
    with_secrets, without = secret.sub(r"\1", filled), secret.sub(MARK, filled)
    return tuple(shlex.split(with_secrets)), tuple(shlex.split(without))


@given(seed=st.integers(0, 2**32))
def test_no_secret_of_the_corpus_survives(seed):
    for secret, args in command_lines(seed):
        assert secret not in "\n".join(clean_args(args))


@pytest.mark.parametrize("line", cases(WITH_SECRETS))
def test_secrets_are_replaced_and_nothing_else(line):
    args, expected = given_and_expected(line)
    assert args != expected
    assert clean_args(args) == expected


@pytest.mark.parametrize("line", cases(HARMLESS))
def test_a_harmless_command_line_stays_as_it_is(line):
    args = tuple(shlex.split(line))
    assert clean_args(args) == args


def test_a_word_that_was_harmless_in_one_command_is_none_in_the_next():
    for args in ("echo", "swordfish"), ("login", "--password", "swordfish"):
        event = ProcessEvent("exec", pid=1, start_ns=0, args=args)
        clean_event(event)
    assert event.args == ("login", "--password", MARK)
    assert clean_args(("echo", "swordfish")) == ("echo", "swordfish")


# --- secrets that nobody has thought of ---------------------------------------------------

unguessable = st.text(string.ascii_letters + string.digits + "._+^!-", min_size=8, max_size=64)
secrets = unguessable.filter(lambda text: not text.startswith("-"))


@settings(deadline=None, max_examples=40)
@given(secret=secrets)
@pytest.mark.parametrize("position", POSITIONS)
def test_no_secret_survives_in_a_position_that_is_known(position, secret):
    def args(word: str) -> tuple[str, ...]:
        return tuple(shlex.split(position.replace("@", word, 1)))

    kept = " ".join(clean_args(args(secret))).split(MARK)
    assert len(kept) == 2
    # Not a piece of it either: what is left was there around it.
    around = " ".join(args("\0")).split("\0")
    assert around[0].startswith(kept[0])
    assert around[1].endswith(kept[1])


@pytest.mark.parametrize("line", cases(WITH_SECRETS))
def test_no_secret_survives_inside_the_command_of_a_shell(line):
    def words(args: tuple[str, ...]) -> set[str]:
        return set(re.findall(r"[^\W_]{4,}", " ".join(args)))

    args, expected = given_and_expected(line)
    shown = clean_args(("sh", "-c", shlex.join(args)))
    assert not (words(args) - words(expected)) & words(shown)
    assert MARK in shown[2]


fragments = st.one_of(
    st.sampled_from([word for line in cases(WITH_SECRETS) for word in given_and_expected(line)[0]]),
    st.sampled_from(
        ["--password", "-p", "-u", "mysql", "curl", "sh -c '", '"', "\\", "=", ":", " "]
    ),
    st.text(max_size=20),
)
commands = st.lists(st.lists(fragments, max_size=4).map("".join), max_size=8).map(tuple)


@settings(deadline=None, max_examples=300)
@given(args=commands)
@example(args=("tool", "--password", "", "visible"))
@example(args=("tool", "https://token:x@host/"))
def test_cleaning_twice_is_cleaning_once(args):
    once = clean_args(args)
    assert len(once) == len(args)
    assert clean_args(once) == once


alike = st.sampled_from(
    [
        *_WAYS, "p0", "p7", "9z", "0zr", "pass", "PASS", "to\u212aen", "\u2003", "\x1f", "://", "é",
        "$(",
    ]
)  # fmt: skip
look_alikes = st.lists(st.lists(fragments | alike, max_size=4).map("".join), max_size=8).map(tuple)


@settings(deadline=None, max_examples=200)
@given(args=look_alikes)
@example(args=("sh", "-c", "mysql\u2003-phunter2"))
@example(args=("tool", "--to\u212aen", "hunter2"))
@example(args=("tool", "caf\udce9"))
def test_what_is_passed_over_for_looking_innocent_is_innocent(args):
    assert clean_args(args) == tuple(every_word_followed(args))


@pytest.mark.parametrize("program", [name for name in _WAYS if re.search(r"\d", name)])
def test_what_only_looks_like_a_program_does_not_hide_it(program):
    for digit in string.digits:
        clean_args((re.sub(r"\d", digit, program), program.upper()))
    ways = _WAYS[program]
    for option in ways.attached:
        assert clean_args((program, f"{option}hunter2")) == (program, f"{option}{MARK}")
    for option in ways.follows:
        assert clean_args((program, option, "hunter2")) == (program, option, MARK)


@settings(deadline=None, max_examples=200)
@given(text=st.lists(fragments, max_size=12).map(" ".join))
def test_a_cleaned_text_is_clean(text):
    once = clean_text(text)
    assert clean_text(once) == once


def test_shapes_tell_by_themselves_wherever_they_stand():
    for name, token in SHAPES.items():
        assert clean_text(f"see {token}, please") == f"see {MARK}, please", name
    assert clean_text(f"key:\n{PRIVATE_KEY}\nend") == f"key:\n{MARK}\nend"


def test_a_private_key_that_was_cut_is_replaced_to_its_end():
    assert clean_text(PRIVATE_KEY[:50]) == MARK


def test_a_flag_that_looks_like_a_name_does_not_hide_the_password_after_the_next():
    args = ("mongod", "--auth", "--password", "hunter2", "--quiet")
    assert clean_args(args) == ("mongod", "--auth", "--password", MARK, "--quiet")


def test_an_empty_value_is_no_secret_and_neither_is_what_follows():
    args = ("ssh-keygen", "-N", "", "-f", "id")
    assert clean_args(args) == args


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "fragment",
    [
        "a", "secret", "a-", "eyJ", "pass=", 'pass="', 'token:\\"', '\\"', "'", '"', "://a:", "://",
        "a://b@", "bearer ", "basic", "-----BEGIN ", "pass ", "--password ", "sh -c '\"", "x" * 30,
        "bot123456:", "hv" + "s.", "=>", " ", "\u2028", "a:b,", "%",
    ],
)  # fmt: skip
def test_hostile_arguments_do_not_stall_the_pipeline(fragment):
    # Quadratic expressions took minutes for one such argument; the timeout is for those.
    long = (fragment * 200_000)[:200_000]
    for first in ("tool", "mysql", "curl", "secret"):
        event = ProcessEvent("exec", 7, 0, args=(first, *["password" + long] * 400, "token"))
        clean_event(event)
        assert sum(map(len, event.args)) <= MAX_ARGS_CHARS
        assert event.truncated


# --- events, samples, alerts --------------------------------------------------------------

# Any text, also with the surrogates that bytes become which are no UTF-8.
any_text = st.text(st.characters(exclude_categories=[]), max_size=30)
bytes_text = st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
hostile = any_text | bytes_text


@settings(deadline=None, max_examples=300)
@given(
    comm=hostile,
    exe=st.none() | hostile,
    cwd=st.none() | hostile,
    cgroup=st.none() | hostile,
    args=st.none() | st.lists(hostile | fragments, max_size=5).map(tuple),
)
def test_a_cleaned_event_can_always_be_written_as_json(comm, exe, cwd, cgroup, args):
    event = ProcessEvent(
        "exec", 7, 0, comm=comm, exe=exe, cwd=cwd, cgroup=cgroup, args=args, boot_id="b"
    )
    clean_event(event)
    line = encode(event)
    assert b"\n" not in line
    line.decode()


@settings(deadline=None, max_examples=100)
@given(text=hostile)
def test_cleaned_samples_can_always_be_written_as_json(text):
    sample = ProcessSample(7, 0, 1, comm=text, cgroup=text)
    clean_sample(sample)
    encode(sample)
    cgroup = CgroupSample(text, 1)
    clean_cgroup(cgroup)
    encode(cgroup)


@pytest.mark.parametrize("letter", ["x", "é", "\udcff", "\U0001f600"])
def test_lengths_are_bounded_and_what_was_cut_is_said(letter):
    long = letter * 10_000
    event = ProcessEvent("exec", 7, 0, comm=long, exe=long, cwd=long, cgroup=long, args=(long, "b"))
    clean_event(event)
    assert len(event.comm) == MAX_COMM_CHARS
    assert len(event.exe) == len(event.cwd) == len(event.cgroup) == MAX_PATH_CHARS
    assert sum(map(len, event.args)) == MAX_ARGS_CHARS
    assert event.truncated
    sample = ProcessSample(7, 0, 1, comm=long, cgroup=long)
    clean_sample(sample)
    assert (len(sample.comm), len(sample.cgroup)) == (MAX_COMM_CHARS, MAX_PATH_CHARS)


def test_the_number_of_arguments_is_bounded():
    event = ProcessEvent("exec", 7, 0, args=("x",) * (MAX_ARGS + 1))
    clean_event(event)
    assert event.args == ("x",) * MAX_ARGS
    assert event.truncated


def test_what_fits_is_neither_cut_nor_marked_as_cut():
    event = ProcessEvent("exec", 7, 0, comm="x" * MAX_COMM_CHARS, args=("y" * MAX_ARGS_CHARS,))
    clean_event(event)
    assert (event.comm, event.args) == ("x" * MAX_COMM_CHARS, ("y" * MAX_ARGS_CHARS,))
    assert not event.truncated


def test_a_secret_that_reaches_over_the_cut_leaves_nothing_behind():
    password = "Zq" * 3000
    event = ProcessEvent("exec", 7, 0, args=("psql", f"postgres://me:{password[:500]}@host/db"))
    clean_event(event)
    assert event.args == ("psql", f"postgres://me:{MARK}@host/db")
    event = ProcessEvent("exec", 7, 0, args=("tool", f"--password={password}", "after"))
    clean_event(event)
    assert event.args == ("tool", f"--password={MARK}", "after")


def test_bytes_that_are_no_text_are_written_out():
    event = ProcessEvent("exec", 7, 0, comm="caf\udce9", args=("a\udcffb", "ß"))
    clean_event(event)
    assert event.comm == r"caf\xe9"
    assert event.args == (r"a\xffb", "ß")


def test_the_same_command_twice_is_cleaned_twice():
    for args in (("ls", "-l"), ("mysql", "-phunter2")):
        shown = []
        for _ in range(2):
            event = ProcessEvent("exec", 7, 0, args=args)
            clean_event(event)
            shown.append(event.args)
        assert shown[0] == shown[1] == clean_args(args)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pid": "7"},
        {"start_ns": None},
        {"comm": None},
        {"comm": b"sh"},
        {"boot_id": 7},
        {"ppid": "1"},
        {"args": (1, 2)},
        {"args": "text", "comm": 3},
        {"exe": 5},
        {"cwd": b"/"},
        {"cgroup": 5},
    ],
)
def test_an_event_of_the_wrong_types_is_refused(wrong):
    event = ProcessEvent(**{"kind": "exec", "pid": 7, "start_ns": 0, **wrong})
    with pytest.raises((TypeError, AttributeError)):
        clean_event(event)


def an_alert(**parts) -> Alert:
    return Alert(**{"rule": "r", "severity": "high", "message": "m", **parts})


def test_an_alert_that_quotes_a_process_is_cleaned():
    alert = an_alert(
        message="ran mysql --password=hunter2 \udcff" + "x" * 2000,
        actions=("curl -H 'Authorization: Bearer abcdefgh' x", "b", "c", "d"),
        subject=Subject(
            key=ProcessKey("b", 7, 0), exe="/\udce9", comm="c" * 100, cgroup="/" * 9000
        ),
        evidence=tuple(Evidence(f"n{n}", n, "1") for n in range(100)),
    )
    clean_alert(alert)
    assert "hunter2" not in alert.message
    assert len(alert.message) == 1000
    assert alert.actions == (f"curl -H 'Authorization: {MARK}' x", "b", "c")
    assert alert.subject.exe == r"/\xe9"
    assert alert.subject.key == ProcessKey("b", 7, 0)
    assert (len(alert.subject.comm), len(alert.subject.cgroup)) == (MAX_COMM_CHARS, MAX_PATH_CHARS)
    assert len(alert.evidence) == 32
    encode(alert)


def test_numbers_that_json_does_not_have_are_no_evidence():
    good = Evidence("forks", 3.5, "forks")
    wrong = [Evidence("a", value, "1") for value in (math.nan, -math.inf, 10**400)]
    alert = an_alert(evidence=(*wrong, good))
    clean_alert(alert)
    assert alert.evidence == (good,)


@settings(deadline=None, max_examples=100)
@given(text=hostile)
def test_a_cleaned_alert_can_always_be_written_as_json(text):
    alert = an_alert(
        rule=text,
        message=text,
        actions=(text,),
        subject=Subject(exe=text, comm=text, cgroup=text),
        evidence=(Evidence(text, 1, text),),
    )
    assert is_alert(alert)
    clean_alert(alert)
    encode(alert).decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": 1},
        {"message": None},
        {"severity": "bad"},
        {"severity": ["high"]},
        {"class_": "storm"},
        {"subject": None},
        {"subject": Subject(key=("b", 7, 0))},
        {"subject": Subject(exe=b"/bin/sh")},
        {"subject": Subject(comm=None)},
        {"evidence": ("many",)},
        {"evidence": (Evidence("n", "3", "1"),)},
        {"evidence": (Evidence("n", True, "1"),)},
        {"evidence": (Evidence(None, 1, "1"),)},
        {"actions": (b"kill",)},
    ],
)
def test_what_is_no_alert_is_told_apart(wrong):
    assert is_alert(an_alert())
    assert not is_alert(an_alert(**wrong))
    assert not is_alert({"rule": "r"})


def test_cleaning_needs_nothing_but_the_contract():
    # What stands in every event's way must not drag in what only commands need.
    code = "import sys, linnix_core.redact; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"click", "cattrs", "stevedore", "tomli_w"} & set(done.stdout.split())
