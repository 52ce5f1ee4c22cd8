# Prepares a server of `moto`, whose URL and certificate are the arguments: a user with keys, a role that the user may
# assume, a function and a secret that only the role may use. Prints the keys. Every request is one of the first nine,
# which the server does not authorize.
import io
import json
import sys
import zipfile

import boto3

options = {
    "endpoint_url": sys.argv[1], "verify": sys.argv[2], "region_name": "eu-west-1",
    "aws_access_key_id": "setup", "aws_secret_access_key": "setup",
}
iam, functions, secrets = (boto3.client(name, **options) for name in ["iam", "lambda", "secretsmanager"])


def policy(*actions):
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


iam.create_user(UserName="gateway")
iam.put_user_policy(UserName="gateway", PolicyName="assume", PolicyDocument=policy("sts:AssumeRole"))
keys = iam.create_access_key(UserName="gateway")["AccessKey"]
trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
role = iam.create_role(
    RoleName="caller",
    AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
)["Role"]["Arn"]
# The server calls `lambda:InvokeFunction` by the name of the operation.
actions = ["lambda:Invoke", "secretsmanager:GetSecretValue"]
iam.put_role_policy(RoleName="caller", PolicyName="call", PolicyDocument=policy(*actions))
code = io.BytesIO()
with zipfile.ZipFile(code, "w") as archive:
    archive.writestr("main.py", "")
functions.create_function(
    FunctionName="thumbnails", Runtime="python3.12", Role=role, Handler="main.run", Code={"ZipFile": code.getvalue()},
)
secrets.create_secret(Name="prod/db", SecretString=json.dumps({"user": "anna", "port": 5}))
secrets.create_secret(Name="token", SecretString="whole text")
secrets.create_secret(Name="binary", SecretBinary=b"in base64")
print(json.dumps({"key": keys["AccessKeyId"], "secret": keys["SecretAccessKey"], "role": role}))
