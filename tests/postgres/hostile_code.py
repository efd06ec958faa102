"""Objects of a login without rights, whose code asks for more as soon as it can."""

# Each function is harmless in the source: there it runs as lowly.
GRAB = """
CREATE FUNCTION grab(f text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  EXECUTE format('CREATE ROLE %I', f); EXCEPTION WHEN OTHERS THEN NULL; END $$;
"""
FUNCTION = """
CREATE FUNCTION {0}(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  PERFORM public.grab('{0}'); RETURN i; END $$;
"""
ATOMIC = """CREATE FUNCTION f_atomic() RETURNS int LANGUAGE sql IMMUTABLE
  BEGIN ATOMIC SELECT public.f_check(1); END;"""
# While rows are loaded.
ROWS = """
CREATE TABLE checked (i int CHECK (f_check(i) > 0)); INSERT INTO checked VALUES (1);
CREATE TABLE generated (i int, j int GENERATED ALWAYS AS (f_generated(i)) STORED);
INSERT INTO generated VALUES (1);
CREATE DOMAIN positive AS int CHECK (f_domain(VALUE) > 0);
CREATE TABLE domains (i positive); INSERT INTO domains VALUES (1);
CREATE TABLE parted (i int) PARTITION BY LIST (f_part(i));
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1); INSERT INTO parted VALUES (1);
"""
# When a statement is planned: calls with constant arguments, and keys that are domains.
PLANNED = """
CREATE TABLE g_planned (i int, j int GENERATED ALWAYS AS (i + f_g_planned(1)) STORED);
INSERT INTO g_planned VALUES (1);
CREATE TABLE p_planned (i int) PARTITION BY LIST ((i + f_p_planned(1)));
CREATE TABLE p_planned_1 PARTITION OF p_planned FOR VALUES IN (2); INSERT INTO p_planned VALUES (1);
CREATE DOMAIN bound AS int CHECK (f_bound(VALUE) > 0);
CREATE TABLE bounds (i bound) PARTITION BY LIST (i);
CREATE TABLE bounds_1 PARTITION OF bounds FOR VALUES IN (1);
CREATE TABLE attached (i int) PARTITION BY LIST (i);
CREATE TABLE attached_1 (i int CHECK (i < f_attached(5) + f_atomic()));
ALTER TABLE attached ATTACH PARTITION attached_1 FOR VALUES IN (1);
"""
# Indexes and constraints on rows.
LATER = """
CREATE TABLE indexed (i int PRIMARY KEY); INSERT INTO indexed VALUES (1);
CREATE INDEX ON indexed (f_index(i)); CREATE INDEX ON indexed (i) WHERE f_predicate(i) > 0;
CREATE INDEX ON indexed ((i + f_i_planned(1)));
CREATE TABLE refers (i int REFERENCES indexed); INSERT INTO refers VALUES (1);
CREATE MATERIALIZED VIEW m AS SELECT f_view(1) AS i;
CREATE TYPE word AS ENUM ('a');
CREATE FUNCTION number(word) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT public.f_cast(1)';
CREATE CAST (word AS int) WITH FUNCTION number(word) AS IMPLICIT;
CREATE TABLE casted (w word REFERENCES indexed); INSERT INTO casted VALUES ('a');
CREATE TABLE looped (i int); INSERT INTO looped VALUES (1);
CREATE FUNCTION loop(looped) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  RETURN public.f_loop(1) > 0; END $$;
ALTER TABLE looped ADD CHECK (loop(looped));
CREATE STATISTICS st ON (f_statistics(i)), i FROM looped;
CREATE TABLE keyed (i int) PARTITION BY LIST (i);
CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES IN (1); INSERT INTO keyed VALUES (1);
CREATE INDEX ON keyed ((i + f_i_attached(1)));
ALTER TABLE casted ADD CONSTRAINT "as EVENT TRIGGER x" FOREIGN KEY (w) REFERENCES indexed;
ALTER TABLE looped ADD CONSTRAINT "as EVENT TRIGGER y" CHECK (loop(looped));
"""
# When a constant is parsed; no function of a user is needed for that.
PARSED = """
CREATE DOMAIN builtin AS int CHECK (
  CASE WHEN current_setting('is_superuser') = 'on' THEN lo_create(0) > 0 ELSE true END);
CREATE DOMAIN own AS int CHECK (f_parsed(VALUE) > 0);
CREATE TABLE parsed (i int, a builtin[] DEFAULT '{1}'::builtin[], CHECK (a <> '{7}'::builtin[]));
INSERT INTO parsed VALUES (1);
CREATE VIEW v AS SELECT '{1}'::builtin[] AS a, '{1}'::own[] AS b;
CREATE FUNCTION step(builtin, int) RETURNS builtin LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE AGGREGATE total(int) (sfunc = step, stype = builtin, initcond = '1');
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON parsed FOR EACH ROW WHEN (NEW.a <> '{2}'::builtin[]
  AND ARRAY[NEW.i] <> '{2}'::own[]::int[]) EXECUTE FUNCTION changed();
CREATE POLICY p ON parsed USING (a <> '{3}'::builtin[] AND ARRAY[i] <> '{2}'::own[]::int[]);
ALTER TABLE parsed ENABLE ROW LEVEL SECURITY;
CREATE RULE r AS ON UPDATE TO parsed WHERE OLD.a = '{5}'::builtin[] DO INSTEAD NOTHING;
CREATE INDEX ON parsed (i) WHERE a <> '{4}'::builtin[] AND ARRAY[i] <> '{4}'::own[]::int[];
CREATE TABLE bounds_2 (i builtin) PARTITION BY LIST (i);
CREATE TABLE bounds_2_1 PARTITION OF bounds_2 FOR VALUES IN (1);
"""
NAMES = (
    *("check", "generated", "domain", "part", "g_planned", "p_planned", "bound", "attached"),
    *("index", "predicate", "i_planned", "view", "cast", "loop", "statistics", "parsed"),
    "i_attached",
)
FUNCTIONS = GRAB + "".join(FUNCTION.replace("{0}", f"f_{name}") for name in NAMES) + ATOMIC
OBJECTS = FUNCTIONS + ROWS + PLANNED + LATER + PARSED
UNQUALIFIED = """
CREATE TABLE kinds (k int); INSERT INTO kinds VALUES (1);
CREATE FUNCTION known(x int) RETURNS bool LANGUAGE plpgsql STABLE AS $$ BEGIN
  PERFORM public.grab('f_known'); RETURN EXISTS (SELECT FROM kinds WHERE k = x); END $$;
CREATE DOMAIN kind AS int CHECK (known(VALUE));
CREATE TABLE goods (k int CHECK (known(k)), d kind); INSERT INTO goods VALUES (1, 1);
"""
